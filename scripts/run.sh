#!/usr/bin/env bash
# `make run`: builds the agent and runs it on this machine's containers. Lines go
# to LOKI_URL if that is set, else to a log store started beside it (VictoriaLogs,
# which takes Loki's protocol) on 127.0.0.1:9428 or the next free port. Docker is
# found by DOCKER_HOST. What both keep lies in var/. ctrl-C stops both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GO=${GO:-go}

make --no-print-directory build
"$GO" build -o bin/devrun ./scripts/devrun

store=()
if [ -z "${LOKI_URL:-}" ]; then
	unset LOKI_URL
	[ -e bin/victoria-logs ] || echo 'building the log store, once: this takes a minute or two'
	make -s --no-print-directory victoria-logs
	store=(-store bin/victoria-logs)
fi
exec bin/devrun "${store[@]}" "$@"
