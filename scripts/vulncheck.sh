#!/usr/bin/env bash
# Looks in the Go vulnerability database for what the product's code calls. The last
# line says what was found, and so does the exit status:
#
#   0  clean: no known vulnerability is called
#   1  vulnerable: the report above the last line says what, and which version to take
#   2  could not check: the database is out of reach, or the code does not build
#
#   GOVULNDB  another database: https://..., or file:///... for a copy of it
#   GOVULNCHECK  the program; make vulncheck builds it
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

database=${GOVULNDB:-https://vuln.go.dev}
report=$("${GOVULNCHECK:-bin/govulncheck}" -db "$database" "${@:-./...}" 2>&1)
status=$?
printf '%s\n' "$report"
case $status in
0)
	echo 'vulncheck: clean'
	;;
3) # its own status for findings
	echo 'vulncheck: VULNERABLE: see above'
	exit 1
	;;
*)
	if grep -q -e 'fetching vulnerabilities' -e "$database" -e 'no such host' -e 'connection refused' <<<"$report"; then
		echo "vulncheck: COULD NOT CHECK: the vulnerability database $database cannot be reached; set GOVULNDB to one that can"
	else
		echo "vulncheck: COULD NOT CHECK: govulncheck failed with status $status"
	fi
	exit 2
	;;
esac
