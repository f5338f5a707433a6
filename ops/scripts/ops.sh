#!/usr/bin/env bash
# The short verbs of the Makefile, for the containers that run here (lib.sh says by which compose files).
#   ops.sh start|stop|restart|logs [SERVICE]   status|watch   scale SERVICE N   psql|redis-cli
#   ops.sh prerequisites   remove-everything [--yes]
set -euo pipefail
# shellcheck source=ops/scripts/lib.sh
. "$(dirname "$0")/lib.sh"
verb=${1:-}
[ $# -eq 0 ] || shift

status() {
    echo "mode $mode$([ "$mode" != prod ] || echo ", version $ORCHESTRATOR_VERSION")"
    compose ps --all --format 'table {{.Name}}\t{{.Status}}\t{{.Image}}'
    local ids
    ids=$(compose ps --quiet)
    # shellcheck disable=SC2086 # ids, a word each
    [ -z "$ids" ] || docker stats --no-stream --format 'table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.PIDs}}' $ids
}

have() { if command -v "$1" >/dev/null 2>&1; then echo "here     $1"; else echo "missing  $1: $2"; fi; }

case $verb in
start | stop) compose "$verb" "$@" ;;
restart)
    if [ $# -eq 0 ]; then compose restart; else compose restart --no-deps "$@"; fi
    ;;
logs) exec docker compose "${files[@]}" logs --follow --tail "${TAIL:-100}" "$@" ;;
status) status ;;
watch)
    while :; do
        shown=$(status)
        clear
        date -u
        echo "$shown"
        sleep 2
    done
    ;;
scale)
    [[ ${2:-} =~ ^[0-9]+$ ]] || die "how many?"
    [ "$1" != api ] || [ "$mode" = prod ] || die "there is one port for one api, but in prod, where nginx is in front"
    compose up --detach --no-build --no-recreate --no-deps --scale "$1=$2" "$1"
    # shellcheck disable=SC2046 # ids, a word each
    wait_healthy 120 $(running "$1")
    ;;
psql) exec docker compose "${files[@]}" exec postgres psql -U orchestrator -d orchestrator "$@" ;;
redis-cli)
    # shellcheck disable=SC2016 # expanded in the container
    exec docker compose "${files[@]}" exec redis sh -c 'export REDISCLI_AUTH=$(cat /run/passwords/redis_password); exec redis-cli "$@"' redis-cli "$@"
    ;;
prerequisites)
    have docker "everything in containers"
    if docker compose version >/dev/null 2>&1; then echo "here     docker compose $(docker compose version --short)"; else echo "missing  docker compose"; fi
    have curl "health, smoke and deploy"
    have openssl "a certificate to begin with"
    have age "backups of the configuration"
    have flock "deploy"
    have trivy "security-scan looks into images"
    ;;
remove-everything)
    if [ "${1:-}" != --yes ]; then
        [ -t 0 ] || die "this removes all data: say --yes"
        read -r -p "Remove containers, images and volumes of the orchestrator, with all data? Backups stay. Type yes: " answer
        [ "$answer" = yes ] || die "nothing was removed"
    fi
    for some in plain dev prod; do
        [ -f "docker-compose.$some.yml" ] || [ "$some" = plain ] || continue
        ORCHESTRATOR_MODE=$some "$0" remove-one
    done
    rm -rf "$state"
    ;;
remove-one) compose --profile '*' down --volumes --remove-orphans --rmi local ;;
*)
    sed -n '2,4s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
