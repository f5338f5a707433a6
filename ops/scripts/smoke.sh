#!/usr/bin/env bash
# Tries the system from outside, as a caller does: a few seconds, nothing stays but two finished runs.
#   smoke.sh [URL]       default: the system that runs here (lib.sh says how it is found)
# Key: ORCHESTRATOR_API_KEY, else .secrets/admin_api_key (prod), else .orchestrator/admin.key.
#
# 1. it is ready; 2. nobody comes in without a key; 3. a run is taken (a repeated request gives the same
# one), done by a worker, and its output is right; 4. a task due in 3 s is fired by the scheduler.
set -euo pipefail
[ -z "${1:-}" ] || export ORCHESTRATOR_URL=$1
# shellcheck source=ops/scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need curl
url=$(api_url)
key=$(admin_key)
[ -n "$key" ] || die "no key: set ORCHESTRATOR_API_KEY"
within=${SMOKE_SECONDS:-30} # how long something may take
name=smoke-$(date -u +%s)-$$

# The key goes in by standard input: arguments can be seen by everybody on this machine.
call() { # call METHOD PATH [BODY]: status on the first line, then the body
    local arguments=(--request "$1" "$url$2" --header @- --write-out '\n%{http_code}')
    [ -z "${3:-}" ] || arguments+=(--header 'Content-Type: application/json' --data "$3")
    [ -z "${4:-}" ] || arguments+=(--header "Idempotency-Key: $4")
    # shellcheck disable=SC2016 # a program for sed
    printf 'Authorization: Bearer %s\n' "$key" | ask "${arguments[@]}" | sed -n '1h;1!H;${g;s/\(.*\)\n\([0-9]*\)$/\2\n\1/;p}'
}
field() { grep -oE "\"$1\":\"[^\"]*\"" | sed -n 1p | cut -d'"' -f4; }
want() { # want STATUS ANSWER WHAT
    [ "$(head -1 <<<"$2")" = "$1" ] || die "$3: answered $(head -2 <<<"$2" | tr '\n' ' ' | cut -c1-400)"
}
finished() { # finished RUN: waits for its end, gives the answer
    local until=$((SECONDS + within)) answer status
    while :; do
        answer=$(call GET "/runs/$1")
        status=$(field status <<<"$answer")
        case $status in succeeded | failed | canceled | expired) break ;; esac
        [ "$SECONDS" -lt "$until" ] || die "the run $1 is still ${status:-unknown} after $within s"
        sleep 0.3
    done
    [ "$status" = succeeded ] || die "the run $1 has ${status}: $(tail -1 <<<"$answer" | cut -c1-400)"
    printf '%s' "$answer"
}

[ "$(ask --output /dev/null --write-out '%{http_code}' "$url/health/ready")" = 200 ] || die "$url is not ready"
[ "$(ask --output /dev/null --write-out '%{http_code}' "$url/tasks")" = 401 ] || die "/tasks answers without a key"
say "smoke: ready, and closed to strangers"

# shellcheck disable=SC2016 # an expression of the pipeline, not the shell's
body='{"payload":{"params":{"who":"'$name'"},"pipeline":[{"id":"hello","uses":"core.echo","with":{"text":"hello ${params.who}"}}]}}'
answer=$(call POST /runs "$body" "$name")
want 202 "$answer" "POST /runs"
run=$(field run_id <<<"$answer")
again=$(call POST /runs "$body" "$name")
[ "$(field run_id <<<"$again")" = "$run" ] || die "the same request made a second run: $again"
grep -q "hello $name" <<<"$(finished "$run")" || die "the run $run has another output"
say "smoke: a run was taken once and done"

at=$(date -u -d '+3 seconds' +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -v+3S +%Y-%m-%dT%H:%M:%SZ)
answer=$(call POST /tasks '{"name":"'"$name"'","title":"Smoke test","schedule_kind":"once","schedule_expr":"'"$at"'","payload":{"pipeline":[{"id":"tick","uses":"core.echo","with":{"text":"tick"}}]}}')
want 201 "$answer" "POST /tasks"
until=$((SECONDS + within)) run=''
while [ -z "$run" ]; do
    [ "$SECONDS" -lt "$until" ] || die "the task $name did not fire within $within s"
    run=$(call GET "/runs?task_id=$name&limit=1" | field id || true)
    [ -n "$run" ] || sleep 0.3
done
finished "$run" >/dev/null
call DELETE "/tasks/$name" >/dev/null || true
say "smoke: a schedule fired, and its run was done"
