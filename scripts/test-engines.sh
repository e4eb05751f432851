#!/usr/bin/env bash
# The tests against a real Docker engine, on a newer engine than the one that is
# installed: `make test-engines` has built it. The last line is
# "N passed, N failed, N skipped".
#
#   ENGINE  directory of the engine's dockerd and runc (bin/engine29);
#       containerd and its shim are those installed
#   ARGS  more arguments of go test: ARGS='-run Rotation'
#   LOG_CAPTURER_BIN, VICTORIA_LOGS_BIN  told to the tests: the binaries to run
#
# There is nothing else to run here: where no engine can be started (no root, no
# containerd), the tests fail and say why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GO=${GO:-go}
ENGINE=${ENGINE:-bin/engine29}
# Daemons live where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

step() { printf '\n==> %s\n' "$*"; }

step 'what the tests need of Docker'
scripts/install-test-deps.sh
"$GO" build -o bin/testsummary ./scripts/testsummary

export LOG_CAPTURER_BIN="${LOG_CAPTURER_BIN:-$PWD/bin/log_capturer}"
export VICTORIA_LOGS_BIN="${VICTORIA_LOGS_BIN:-$PWD/bin/victoria-logs}"
engine=$(cd "$ENGINE" && pwd)
export LOG_CAPTURER_DOCKERD="$engine/dockerd"
export LOG_CAPTURER_RUNC="$engine/runc"
export LOG_CAPTURER_REQUIRE_DOCKER=1

step "tests on $ENGINE"
read -ra args <<<"${ARGS:-}"
# They measure time and start daemons: one package after the other.
"$GO" test -json -shuffle=on -timeout 20m -count=1 -p 1 "${args[@]}" ./tests/harness ./tests/e2e | bin/testsummary
