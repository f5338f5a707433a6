#!/usr/bin/env bash
# Says how the system is, part by part; exits 0 when all is well, 1 when not.
#   healthcheck.sh [--verbose]      --verbose says also what is well
#
# Containers: each that should run does, healthy. The api: its own word on database, Redis, scheduler and
# workers. In prod besides: that Postgres and Redis follow our configuration, and that WAL is archived.
# Without containers (make run): the api alone, at ORCHESTRATOR_URL or http://127.0.0.1:8080.
set -euo pipefail
# shellcheck source=ops/scripts/lib.sh
. "$(dirname "$0")/lib.sh"
verbose=''
case ${1:-} in
--verbose | -v) verbose=yes ;;
'') ;;
*) die "\"$1\" is unknown; say healthcheck.sh [--verbose]" ;;
esac

failed=0
well() { [ -z "$verbose" ] || printf 'ok    %-18s %s\n' "$1" "$2"; }
ill() {
    printf 'FAIL  %-18s %s\n' "$1" "$2"
    failed=1
}
expect() { # expect WHAT WANTED GOT
    if [ "$3" = "$2" ]; then well "$1" "$3"; else ill "$1" "is \"$3\", should be \"$2\""; fi
}

containers() {
    local service id state any
    for service in $(compose config --services); do
        case $service in first-start | monitoring-role) continue ;; esac # they end
        any=''
        for id in $(compose ps --all --quiet "$service"); do
            any=yes
            state=$(docker inspect --format '{{.State.Status}}{{if .State.Health}} {{.State.Health.Status}}{{end}}, restarted {{.RestartCount}} times' "$id")
            case $state in
            "running healthy, "* | "running, "*) well "$(docker inspect --format '{{.Name}}' "$id" | cut -c2-)" "$state" ;;
            *) ill "$(docker inspect --format '{{.Name}}' "$id" | cut -c2-)" "$state" ;;
            esac
        done
        [ -n "$any" ] || ill "$service" "has no container"
    done
}

sql() { compose exec -T postgres psql -U orchestrator -d orchestrator -XAtc "$1" 2>/dev/null || true; }
redis() { compose exec -T redis sh -c "REDISCLI_AUTH=\$(cat /run/passwords/redis_password) redis-cli $1" 2>/dev/null | tr -d '\r' | tail -1 || true; }

configured() {
    expect "postgres config" /etc/postgresql/postgresql.conf "$(sql 'show config_file')"
    expect "postgres config" 0 "$(sql "select count(*) from pg_file_settings where error is not null")"
    expect "wal archive" t "$(sql "select last_failed_time is null or last_archived_time > last_failed_time from pg_stat_archiver")"
    expect "redis eviction" noeviction "$(redis 'config get maxmemory-policy')"
    expect "redis append" yes "$(redis 'config get appendonly')"
}

api() {
    local answer
    if ! answer=$(ask "$(api_url)/health" --write-out '\n%{http_code}' 2>&1); then
        ill api "$(api_url) does not answer: $(tail -1 <<<"$answer")"
    elif [ "$(tail -1 <<<"$answer")" = 200 ]; then
        case $answer in
        *'"status":"degraded"'*) ill api "is degraded: $(head -1 <<<"$answer")" ;;
        *) well api "$(head -1 <<<"$answer")" ;;
        esac
    else
        ill api "answers $(tail -1 <<<"$answer"): $(head -1 <<<"$answer")"
    fi
}

if command -v docker >/dev/null 2>&1 && [ -n "$(compose ps --all --quiet 2>/dev/null)" ]; then
    containers
    [ "$mode" != prod ] || configured
fi
api
[ "$failed" = 0 ] && echo "healthy"
exit "$failed"
