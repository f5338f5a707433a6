#!/bin/sh
# Checks what cargo does not: scripts, Dockerfile, compose files, monitoring. A checker that is not
# installed is told and skipped; one that finds something makes this fail.
set -eu
cd "$(dirname "$0")/../.."
failed=

# check NAME PROGRAM COMMAND…: runs the command if PROGRAM is here.
check() {
    name=$1 program=$2
    shift 2
    if ! command -v "$program" >/dev/null 2>&1; then
        echo "skipped: no $program ($name)"
    elif "$@"; then
        echo "ok: $name"
    else
        echo "failed: $name" >&2
        failed=yes
    fi
}

scripts=$(find ops/scripts .ci -type f \( -name '*.sh' -o -name run \))
# shellcheck disable=SC2086 # a list of files
check scripts shellcheck shellcheck $scripts

if [ -f ops/Dockerfile ]; then
    check ops/Dockerfile hadolint hadolint ops/Dockerfile
fi

if [ -f docker-compose.yml ]; then
    check docker-compose.yml docker docker compose -f docker-compose.yml config --quiet
    for other in docker-compose.*.yml; do
        [ -f "$other" ] || continue
        check "$other" docker docker compose -f docker-compose.yml -f "$other" config --quiet
    done
fi

ops/scripts/check-monitoring.sh || failed=yes

[ -z "$failed" ]
