#!/usr/bin/env bash
# tests/monitor_leaks.sh MINUTES: watches the goroutines, descriptors and memory of
# a running agent for so long, prints them, and fails if they have grown.
#
#   LOG_CAPTURER_URL  where the agent serves HTTP (http://127.0.0.1:8401)
#   REPORT            a Markdown file to put the figures into: between its lines
#                     <!-- monitor_leaks: begin --> and end, else as all of it
#
# What each container costs is left out of the figures: a held file is a
# descriptor, an open stream is a descriptor and a goroutine. Containers may
# therefore come and go meanwhile, and should: that is when leaks show.
# `make measure-leaks` has an agent of its own watched while they do.
#
# Compared are the least figures of the first and the last third of the time, for
# what is in flight at one moment is none. They may differ by a few kept
# connections and by 16 MiB.
#
# Exit status: 0 no growth, 1 growth, or the agent cannot be asked or was started anew,
# 2 wrong usage.
set -euo pipefail

readonly url=${LOG_CAPTURER_URL:-http://127.0.0.1:8401}
readonly interval=5 # seconds

if [[ $# -ne 1 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
	echo 'usage: [REPORT=FILE] tests/monitor_leaks.sh MINUTES (a whole number, at least 1)' >&2
	exit 2
fi
. "$(dirname "${BASH_SOURCE[0]}")/report.sh"

scrape() {
	if ! curl -fsS --max-time 10 "$url/metrics"; then
		echo "no agent answers at $url/metrics; start it, or set LOG_CAPTURER_URL" >&2
		return 1
	fi
}

# sample prints "goroutines descriptors bytes containers starts began" of this moment:
# starts are those of containers that the agent has heard of, began is when it was started.
sample() {
	local text
	text=$(scrape) || return 1
	awk '
		{ v[$1] = $2 }
		END {
			for (n in need) if (!(n in v)) missing = missing " " n
			if (missing != "") { print "these metrics are missing:" missing > "/dev/stderr"; exit 1 }
			printf "%d %d %.0f %d %d %s\n", v["log_capturer_goroutines"] - v["log_capturer_streams_open"],
				v["log_capturer_open_fds"] - v["log_capturer_files_held"] - v["log_capturer_streams_open"],
				v["log_capturer_memory_bytes"], v["log_capturer_files_monitored"] + v["log_capturer_streaming_containers"],
				v["log_capturer_docker_events_total{action=\"start\"}"], v["log_capturer_start_time_seconds"]
		}
		BEGIN {
			split("goroutines open_fds memory_bytes files_held streams_open files_monitored streaming_containers start_time_seconds", names, " ")
			for (i in names) need["log_capturer_" names[i]]
		}' <<<"$text"
}

samples=() began=
end=$((SECONDS + $1 * 60))
printf '%8s %11s %11s %9s %11s\n' second goroutines descriptors MiB containers
while :; do
	now=$(sample)
	samples+=("$SECONDS $now")
	read -r goroutines descriptors bytes containers _ at <<<"$now"
	printf '%8d %11d %11d %9d %11d\n' "$SECONDS" "$goroutines" "$descriptors" "$((bytes >> 20))" "$containers"
	if [ "$at" != "${began:=$at}" ]; then
		echo 'the agent was started anew or reloaded: that hides growth' >&2
		exit 1
	fi
	((SECONDS + interval <= end)) || break
	sleep "$interval"
done

# judge AS: the figures, as text or as Markdown; fails on growth.
judge() {
	printf '%s\n' "${samples[@]}" | awk -v as="$1" '
	{ for (i = 1; i <= NF; i++) at[NR, i - 1] = $i }
	function least(column, from, to,   n, m) {
		m = at[from, column]
		for (n = from; n <= to; n++) if (at[n, column] < m) m = at[n, column]
		return m
	}
	function most(column,   n, m) {
		for (n = 1; n <= NR; n++) if (n == 1 || at[n, column] > m) m = at[n, column]
		return m
	}
	function compare(what, column, unit, spare,   before, after, grown) {
		before = least(column, 1, third) / unit
		after = least(column, NR - third + 1, NR) / unit
		grown = after - before > spare
		if (as == "text") printf "%s: %.0f at first, %.0f at last, at most %d more are allowed: %s\n", what, before, after, spare, grown ? "GROWN" : "ok"
		else printf "| %s | %.0f | %.0f | %.0f | %.2f | %d | %s |\n", what, before, after, most(column) / unit, (after - before) / minutes, spare, grown ? "GROWN" : "flat"
		all = all sprintf("%s%s %.0f, then %.0f", all == "" ? "" : "; ", what, before, after)
		return grown
	}
	END {
		third = int(NR / 3)
		# From the middle of the first third to that of the last.
		minutes = (at[NR, 0] - at[1, 0]) / 60 * 2 / 3
		if (as != "text") {
			printf "%.0f minutes, %d samples; %d to %d containers at a time, of which %d were started meanwhile.\n\n", (at[NR, 0] - at[1, 0]) / 60, NR,
				least(4, 1, NR), most(4), at[NR, 5] - at[1, 5]
			print "| | first third, least | last third, least | most | gained per minute | may gain | |"
			print "|---|---:|---:|---:|---:|---:|---|"
		}
		bad = compare("goroutines", 1, 1, 16)
		bad += compare("descriptors", 2, 1, 8)
		bad += compare("memory, MiB", 3, 1048576, 16)
		if (as == "text") printf "monitor_leaks: %s: %s\n", all, bad ? "FAILED" : "ok"
		exit bad > 0
	}'
}

if [ -n "${REPORT:-}" ]; then
	{
		measured_on "log_capturer $(scrape | sed -n 's/^log_capturer_build_info{\(.*\)} .*/\1/p')"
		echo
		judge markdown || true # the text says it, too
	} | put_report "$REPORT" monitor_leaks
fi
judge text
