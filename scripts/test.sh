#!/usr/bin/env bash
# All tests, in the order in which failures are cheapest to learn of. The last
# line is "N passed, N failed, N skipped"; before it stands what was not run.
#
#   LOG_CAPTURER_REQUIRE_DOCKER  set to 1 here when the tests against a real
#       dockerd can run (dockerd, containerd and runc found, root), so that none
#       of them skips in silence; set it to 0 to let them skip all the same
#   SIMULATION_SEEDS  how many seeds the simulation runs (20000, two minutes)
#   LOG_CAPTURER_BIN, VICTORIA_LOGS_BIN  told to the tests: the binaries to run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GO=${GO:-go}
SIMULATION_SEEDS=${SIMULATION_SEEDS:-20000}
# Daemons live where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

step() { printf '\n==> %s\n' "$*"; }

step 'what the tests need of Docker'
scripts/install-test-deps.sh

step 'gofmt'
make --no-print-directory fmt-check
step 'go vet'
"$GO" vet ./...
step 'log store'
make --no-print-directory victoria-logs
step 'agent'
make --no-print-directory build
"$GO" build -o bin/testsummary ./scripts/testsummary

export LOG_CAPTURER_BIN="$PWD/bin/log_capturer"
export VICTORIA_LOGS_BIN="$PWD/bin/victoria-logs"

# found PROGRAM...: whether all are there; `command -v` with several is content
# with one.
found() {
	local program
	for program in "$@"; do
		command -v "$program" >/dev/null || return 1
	done
}

if [ "$(id -u)" = 0 ] && found dockerd containerd runc; then
	export LOG_CAPTURER_REQUIRE_DOCKER=${LOG_CAPTURER_REQUIRE_DOCKER-1}
fi

race=()
notes=()
read -r cc _ <<<"$("$GO" env CC)"
if found "$cc"; then
	export CGO_ENABLED=1
	race=(-race)
else
	notes=(-not-run 'race detector: needs a C compiler (gcc, clang), none found; the tests ran without it')
fi

packages=$("$GO" list ./...)
mapfile -t units < <(grep -v '/tests\(/\|$\)' <<<"$packages")
mapfile -t integration < <(grep '/tests\(/\|$\)' <<<"$packages" | grep -v '/tests/e2e$')

# Tests of allocations (their names say Alloc) mean nothing under the race
# detector, which allocates: they run by themselves, without it.
mapfile -t allocs < <(grep -rlE --include='*_test.go' '^func Test\w*Alloc' cmd internal | xargs -r dirname | sort -u | sed 's|^|./|')

# gotest argument... package...
gotest() { "$GO" test -json -shuffle=on -timeout 20m -count=1 "$@"; }

# The integration tests start daemons and wait for them most of the time: two
# packages at a time. Those of tests/e2e have the machine to themselves: first, one
# after the other, the tests that measure or race against the engine; then those
# that say t.Parallel, some at a time, each with an engine of its own.
run_all() {
	local rc=0
	gotest "${race[@]}" -skip Alloc -p 2 "${units[@]}" || rc=1
	if [ "${#allocs[@]}" -gt 0 ]; then
		gotest -run Alloc -p 2 "${allocs[@]}" || rc=1
	fi
	# Many more seeds than the few that the race detector has had time for.
	gotest -run '^TestSimulation$' ./internal/simulation -sim.seeds="$SIMULATION_SEEDS" || rc=1
	if [ "${#integration[@]}" -gt 0 ]; then
		gotest "${race[@]}" -p 2 "${integration[@]}" || rc=1
	fi
	gotest "${race[@]}" -parallel 3 ./tests/e2e || rc=1
	return "$rc"
}

step 'tests'
rc=0
run_all | bin/testsummary "${notes[@]}" || rc=$?
exit "$rc"
