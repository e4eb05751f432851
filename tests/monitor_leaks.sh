#!/usr/bin/env bash
# tests/monitor_leaks.sh MINUTES: watches the goroutines, descriptors and memory of
# a running agent for so long, prints them, and fails if they have grown.
#
#   LOG_CAPTURER_URL  where the agent serves HTTP (http://127.0.0.1:8401)
#
# What each container costs is left out of the figures: a held file is a
# descriptor, an open stream is a descriptor and a goroutine. Containers may
# therefore come and go meanwhile, and should: that is when leaks show.
#
# Compared are the least figures of the first and the last third of the time, for
# what is in flight at one moment is none. They may differ by a few kept
# connections and by 16 MiB.
#
# Exit status: 0 no growth, 1 growth or the agent cannot be asked, 2 wrong usage.
set -euo pipefail

readonly url=${LOG_CAPTURER_URL:-http://127.0.0.1:8401}
readonly interval=5 # seconds

if [[ $# -ne 1 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
	echo 'usage: tests/monitor_leaks.sh MINUTES (a whole number, at least 1)' >&2
	exit 2
fi

# sample prints "goroutines descriptors bytes containers" of this moment.
sample() {
	local text
	if ! text=$(curl -fsS --max-time 10 "$url/metrics"); then
		echo "no agent answers at $url/metrics; start it, or set LOG_CAPTURER_URL" >&2
		return 1
	fi
	awk '
		{ v[$1] = $2 }
		END {
			for (n in need) if (!(n in v)) missing = missing " " n
			if (missing != "") { print "these metrics are missing:" missing > "/dev/stderr"; exit 1 }
			printf "%d %d %.0f %d\n", v["log_capturer_goroutines"] - v["log_capturer_streams_open"],
				v["log_capturer_open_fds"] - v["log_capturer_files_held"] - v["log_capturer_streams_open"],
				v["log_capturer_memory_bytes"], v["log_capturer_files_monitored"] + v["log_capturer_streaming_containers"]
		}
		BEGIN {
			split("goroutines open_fds memory_bytes files_held streams_open files_monitored streaming_containers", names, " ")
			for (i in names) need["log_capturer_" names[i]]
		}' <<<"$text"
}

samples=()
end=$((SECONDS + $1 * 60))
printf '%8s %11s %11s %9s %11s\n' second goroutines descriptors MiB containers
while :; do
	now=$(sample)
	samples+=("$now")
	read -r goroutines descriptors bytes containers <<<"$now"
	printf '%8d %11d %11d %9d %11d\n' "$SECONDS" "$goroutines" "$descriptors" "$((bytes >> 20))" "$containers"
	((SECONDS + interval <= end)) || break
	sleep "$interval"
done

printf '%s\n' "${samples[@]}" | awk '
	{ for (i = 1; i <= 3; i++) at[NR, i] = $i }
	function least(column, from, to,   n, m) {
		m = at[from, column]
		for (n = from; n <= to; n++) if (at[n, column] < m) m = at[n, column]
		return m
	}
	function compare(what, column, unit, spare,   before, after, grown) {
		before = least(column, 1, third) / unit
		after = least(column, NR - third + 1, NR) / unit
		grown = after - before > spare
		printf "%s: %.0f at first, %.0f at last, at most %d more are allowed: %s\n", what, before, after, spare, grown ? "GROWN" : "ok"
		return grown
	}
	END {
		third = int(NR / 3)
		bad = compare("goroutines", 1, 1, 16)
		bad += compare("descriptors", 2, 1, 8)
		bad += compare("memory, MiB", 3, 1048576, 16)
		exit bad > 0
	}'
