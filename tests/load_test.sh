#!/usr/bin/env bash
# tests/load_test.sh LINES_PER_SECOND: 50 containers write so many lines in all;
# prints how many of them the agent delivers, how late, and what it needs for that.
#
#   DURATION  for how many seconds it is measured (60)
#
# The agent is built from this tree. The Docker engine, its containers and the store,
# which accepts everything and checks every line, are the script's own and end with
# it. It needs root and what `make test` needs of Docker. The machine should have
# nothing else to do: the load average is printed with the figures.
#
# Exit status: 0 every line arrived once and in order, 1 it did not or the test cannot
# be run, 2 wrong usage.
set -euo pipefail

DURATION=${DURATION-60}
if [[ $# -ne 1 || ! $1 =~ ^[1-9][0-9]*$ || ! $DURATION =~ ^[1-9][0-9]*$ ]]; then
	echo 'usage: [DURATION=SECONDS] tests/load_test.sh LINES_PER_SECOND (whole numbers, at least 1)' >&2
	exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Daemons live where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
make --no-print-directory build test-deps || exit 1

export LOG_CAPTURER_BIN="$PWD/bin/log_capturer"
export LOG_CAPTURER_REQUIRE_DOCKER=1
export LOG_CAPTURER_LOAD_RATE=$1 LOG_CAPTURER_LOAD_SECONDS=$DURATION
"${GO:-go}" test ./tests/e2e -run '^TestLoad$' -count=1 -v -timeout "$((DURATION + 600))s" || exit 1
