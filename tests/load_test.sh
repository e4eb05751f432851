#!/usr/bin/env bash
# tests/load_test.sh LINES_PER_SECOND: 50 containers write so many lines in all;
# prints how many of them the agent delivers, how late, and what it needs for that.
#
#   DURATION  for how many seconds it is measured (60)
#   METHOD    how the agent gets them: files (the default) or streaming, which is what
#             was done before: it is told to read no files
#   REPORT    a Markdown file to put the figures into: between its lines
#             <!-- load_test METHOD: begin --> and end, else as all of it
#
# The agent is built from this tree. The Docker engine, its containers and the store,
# which accepts everything and checks every line, are the script's own and end with
# it. It needs root and what `make test` needs of Docker. The machine should have
# nothing else to do: the load average is printed with the figures.
#
# Exit status: 0 every line arrived once and in order, 1 it did not or the test cannot
# be run, 2 wrong usage.
set -euo pipefail

DURATION=${DURATION-60} METHOD=${METHOD-files}
if [[ $# -ne 1 || ! $1 =~ ^[1-9][0-9]*$ || ! $DURATION =~ ^[1-9][0-9]*$ || ! $METHOD =~ ^(files|streaming)$ ]]; then
	echo 'usage: [DURATION=SECONDS] [METHOD=files|streaming] [REPORT=FILE] tests/load_test.sh LINES_PER_SECOND (whole numbers, at least 1)' >&2
	exit 2
fi
report=${REPORT:+$(realpath -m -- "$REPORT")}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/report.sh
# Daemons live where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
make --no-print-directory build test-deps || exit 1

figures=$(mktemp)
trap 'rm -f "$figures"' EXIT
export LOG_CAPTURER_BIN="$PWD/bin/log_capturer"
export LOG_CAPTURER_REQUIRE_DOCKER=1
export LOG_CAPTURER_LOAD_RATE=$1 LOG_CAPTURER_LOAD_SECONDS=$DURATION LOG_CAPTURER_LOAD_METHOD=$METHOD LOG_CAPTURER_LOAD_FIGURES=$figures
verdict=ok
"${GO:-go}" test ./tests/e2e -run '^TestLoad$' -count=1 -v -timeout "$((DURATION + 600))s" || verdict=FAILED

if [ -s "$figures" ] && [ -n "$report" ]; then
	{
		printf '50 containers, %d lines/s in all for %d s, %s: %s.\n\n' "$1" "$DURATION" \
			"$([ "$METHOD" = files ] && echo 'read from files' || echo 'all streamed')" "$verdict"
		measured_on "$(bin/log_capturer version)"
		printf '\n| | |\n|---|---:|\n'
		awk -F'\t' '{ printf "| %s | %s |\n", $1, $2 }' "$figures"
	} | put_report "$report" "load_test $METHOD"
fi
awk -F'\t' -v verdict="$verdict" '
	{ v[$1] = $2 }
	END {
		if (NR) printf "load_test: %s of %s lines delivered, p95 %s, CPU %s %%, %s MB resident: ", v["delivered"], v["lines written"],
			v["written to accepted, p95"], v["CPU, % of one core"], v["resident MB"]
		else printf "load_test: nothing was measured: "
		print verdict
	}' "$figures"
[ "$verdict" = ok ]
