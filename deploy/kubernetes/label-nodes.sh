#!/usr/bin/env bash
# Chooses the nodes of each stage of a rollout: labels a tenth of them
# log-capturer/rollout=10, the rest of the first half 50, the others 100. The choice
# looks random and is the same each time, whatever the nodes' order. Arguments are
# given to kubectl: --context, --dry-run=server and the like.
set -euo pipefail

mapfile -t nodes < <(kubectl get nodes --selector kubernetes.io/os=linux --output name |
	while read -r node; do printf '%s %s\n' "$(sha256sum <<<"$node" | cut -c1-16)" "$node"; done | sort | cut -d' ' -f2)
if [ "${#nodes[@]}" = 0 ]; then
	echo 'kubectl names no nodes' >&2
	exit 1
fi
# Rounded up, so that there is one at least.
tenth=$(((${#nodes[@]} + 9) / 10))
half=$(((${#nodes[@]} + 1) / 2))
label() { # STAGE NODE...
	[ $# = 1 ] || kubectl label --overwrite "${@:2}" "log-capturer/rollout=$1" "${options[@]}"
}
options=("$@")
label 10 "${nodes[@]:0:tenth}"
label 50 "${nodes[@]:tenth:half-tenth}"
label 100 "${nodes[@]:half}"
