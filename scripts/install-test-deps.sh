#!/usr/bin/env bash
# Sees to the programs that tests start: dockerd, containerd, runc, and iptables,
# without which dockerd does not start; prometheus and promtool, for the alerts and
# dashboards in deploy; systemd-analyze, for the unit.
#
# On Debian and Ubuntu, as root, what is absent is installed; nothing that is
# there is replaced, upgraded or removed, no service is started, now or at the
# next boot. Elsewhere the script says what is missing. It is no error if
# something stays missing: the tests that need it skip, and say so.
set -euo pipefail

# Daemons live where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'test dependencies: %s\n' "$*"; }

# installed PACKAGE
installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

package_of() {
	case $1 in
	dockerd) echo docker.io ;;
	promtool) echo prometheus ;;
	systemd-analyze) echo systemd ;;
	*) echo "$1" ;; # containerd, runc, iptables, prometheus
	esac
}

# look PROGRAM...: fills absent with those that are not there.
look() {
	absent=()
	local program
	for program in "$@"; do
		command -v "$program" >/dev/null || absent+=("$program")
	done
}

docker=(dockerd containerd runc iptables)
prometheus=(prometheus promtool)
systemd=(systemd-analyze)

look "${docker[@]}" "${prometheus[@]}" "${systemd[@]}"
if [ "${#absent[@]}" = 0 ]; then
	say 'dockerd, containerd, runc, iptables, prometheus, promtool and systemd-analyze are there'
	exit 0
fi

# missing REASON: end, saying what is missing and what to do about it.
missing() {
	say "not found: ${absent[*]}; $1"
	say 'tests that cannot do without will be skipped'
	exit 0
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	missing 'install Docker Engine with containerd and runc (the daemon need not run), iptables, Prometheus with promtool, and systemd-analyze'
fi

# provide PROGRAM...: installs the packages of those that are absent. It runs
# in a shell of its own, so that what ends it, like missing, does not end the others.
provide() (
	programs=("$@")
	look "${programs[@]}"
	if [ "${#absent[@]}" = 0 ]; then
		exit 0
	fi
	packages=()
	for program in "${absent[@]}"; do
		package=$(package_of "$program")
		case $package in
		docker.io | containerd | runc)
			# Docker's own packages bring the same programs under other names, and
			# conflict with the distribution's.
			for theirs in docker-ce containerd.io moby-engine moby-containerd moby-runc; do
				if installed "$theirs"; then
					missing "$theirs is installed, $package would take its place; complete that installation"
				fi
			done
			;;
		esac
		if [[ " ${packages[*]} " != *" $package "* ]]; then
			packages+=("$package")
		fi
	done

	if [ "$(id -u)" != 0 ]; then
		missing "as root: apt-get install --no-install-recommends ${packages[*]}"
	fi

	say "installing ${packages[*]}"

	# A package starts its service unless this file forbids it (invoke-rc.d(8)).
	policy=/usr/sbin/policy-rc.d
	kept=
	restore() {
		rm -f "$policy"
		if [ -n "$kept" ]; then
			mv -f "$kept" "$policy"
		fi
	}
	if [ -e "$policy" ] || [ -L "$policy" ]; then
		kept=$(mktemp -u "$policy.kept.XXXXXX")
		mv "$policy" "$kept"
	fi
	trap restore EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"

	wanted=(install -y --no-install-recommends --no-remove --no-upgrade "${packages[@]}")
	# "Inst NAME [OLD] (NEW ...)" is an upgrade, "Inst NAME (NEW ...)" is not.
	if ! plan=$(apt-get -s "${wanted[@]}"); then
		missing "apt-get cannot install ${packages[*]} beside what is installed, see above"
	fi
	if upgrades=$(grep -E '^Inst [^ ]+ \[' <<<"$plan"); then
		missing "${packages[*]} would also upgrade: $(awk '{printf "%s ", $2}' <<<"$upgrades")"
	fi
	if ! apt "${wanted[@]}" >/dev/null; then
		missing 'apt-get install failed, see above'
	fi

	# The tests start daemons of their own: one that nobody asked for is not to come
	# up with the machine. Only units of packages that were not there before.
	if command -v systemctl >/dev/null; then
		for package in docker.io containerd prometheus; do
			grep -q "^Inst $package " <<<"$plan" || continue
			case $package in
			docker.io) units=(docker.service docker.socket) ;;
			containerd) units=(containerd.service) ;;
			prometheus) units=(prometheus.service) ;;
			esac
			systemctl --quiet disable "${units[@]}" || say "could not disable ${units[*]}"
		done
	fi

	look "${programs[@]}"
	if [ "${#absent[@]}" != 0 ]; then
		missing 'though their packages are installed'
	fi
	say "installed ${packages[*]}; no service was started"
)

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@"; }

if [ "$(id -u)" = 0 ] && ! apt update; then
	missing 'apt-get update failed, see above'
fi
# Apart from each other: what cannot be had of one keeps nobody from the other.
provide "${docker[@]}"
provide "${prometheus[@]}"
provide "${systemd[@]}"
