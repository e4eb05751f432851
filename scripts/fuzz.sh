#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME (default 30s), one after the
# other: the go command fuzzes one at a time. Goes on after a failure, and names
# at the end those that found something. Without a bound on minimizing, the go
# command spends up to a minute on each large input it finds new, and hardly
# fuzzes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GO=${GO:-go}
FUZZTIME=${FUZZTIME:-30s}

ran=0
failed=()
for pkg in $("$GO" list ./...); do
	# Apart, since a package that does not build must not look like one without
	# targets.
	list=$("$GO" test -list '^Fuzz' "$pkg")
	for target in $(grep '^Fuzz' <<<"$list" || true); do
		printf '\n==> %s %s for %s\n' "$pkg" "$target" "$FUZZTIME"
		ran=$((ran + 1))
		"$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 20x "$pkg" || failed+=("$pkg $target")
	done
done

if [ "$ran" = 0 ]; then
	echo 'no fuzz target found' >&2
	exit 1
fi
printf '\n%d fuzz targets run, %d failed\n' "$ran" "${#failed[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
	printf '  %s\n' "${failed[@]}"
	exit 1
fi
