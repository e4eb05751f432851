# Sourced by the scripts beside it: what was measured, as Markdown.

# measured_on AGENT: when, what and where it was measured, as a list. AGENT is what was
# measured, such as its version.
measured_on() {
	printf -- '- Date: %s\n' "$(date -u +%Y-%m-%dT%H:%MZ)"
	printf -- '- Agent: %s\n' "$1"
	printf -- '- Machine: %d cores of %s, %.1f GiB of memory, Linux %s; load average at the end %s\n' \
		"$(nproc)" "$(awk -F': *' '/^model name/ { print $2; exit }' /proc/cpuinfo)" \
		"$(awk '/^MemTotal:/ { print $2 / 1048576 }' /proc/meminfo)" "$(uname -r)" "$(cut -d' ' -f1 /proc/loadavg)"
}

# put_report FILE NAME: puts what it reads into FILE, between the lines
#
#	<!-- NAME: begin -->
#	<!-- NAME: end -->
#
# which stay; if FILE has none, or is absent, what it reads is all of FILE.
put_report() {
	local file=$1 begin="<!-- $2: begin -->" end="<!-- $2: end -->" text new
	text=$(cat)
	if [ -e "$file" ] && grep -qxF -- "$begin" "$file" && grep -qxF -- "$end" "$file"; then
		new=$(text=$text awk -v begin="$begin" -v end="$end" '
			$0 == end { within = 0 }
			!within { print }
			$0 == begin { within = 1; print ""; print ENVIRON["text"]; print "" }' "$file")
	else
		new=$text
	fi
	printf '%s\n' "$new" >"$file"
	echo "the report is in $file"
}
