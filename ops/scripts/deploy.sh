#!/usr/bin/env bash
# Replaces a prod system that runs (start.sh prod) by another version, without an interruption.
#   deploy.sh [VERSION] [--build] [--no-backup] [--stop]
#   deploy.sh --rollback              back to the version before the last deployment
#
# VERSION is the tag of the four images, which are here; --build makes them from this checkout. Without
# VERSION: what `git describe` says, built when it is not here.
#
# 1. Checks: files, images, and that the system is healthy. 2. A verified backup of the database.
# 3. The schema is brought up to date (old code lives on with it: migrations say so at their head).
# 4. One container of each service in the new version beside the old ones; each must become healthy, and
#    the smoke test must pass. Up to here nothing old was stopped: a failure removes the new ones, and
#    that is all. 5. api, worker, scheduler: old containers go one by one, each new one healthy before the
#    next old one is stopped. 6. The smoke test again.
# A failure in 5 or 6 rolls back in the same way. That needs old code to start, which it refuses when the
# schema is newer than it knows: then the new version stays, and docs/operations.md says what can be done.
# A migration that old code does not survive says so at its head ("Safe while old code runs: no"); then --stop
# is asked for: services stop, backup, schema, the new version starts. A failure puts the backup back and
# starts the old version.
set -euo pipefail

wanted='' build='' backup=yes rollback='' stop=''
for word; do
    case $word in
    --build) build=yes ;;
    --no-backup) backup='' ;;
    --stop) stop=yes ;;
    --rollback) rollback=yes backup='' ;;
    -h | --help)
        sed -n '2,21s/^# \{0,1\}//p' "$0"
        exit
        ;;
    -*)
        echo "deploy: $word is unknown; say deploy.sh [VERSION] [--build] [--no-backup] [--stop] | --rollback" >&2
        exit 2
        ;;
    *) wanted=$word ;;
    esac
done
export ORCHESTRATOR_MODE=prod
unset ORCHESTRATOR_VERSION # what runs is what was written down
# shellcheck source=ops/scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need docker
need curl
need flock

services=(api worker scheduler)
old=$ORCHESTRATOR_VERSION
if [ -n "$rollback" ]; then
    wanted=$(recall previous)
    [ -n "$wanted" ] || die "there is no version before: nothing was deployed from here yet"
elif [ -z "$wanted" ]; then
    wanted=$(git describe --tags --always --dirty 2>/dev/null) || die "which version?"
fi
[[ $wanted =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || die "\"$wanted\" is no tag of an image"
image() { [ "$1" = cli ] && printf 'orchestrator:%s' "$2" || printf 'orchestrator-%s:%s' "$1" "$2"; }

mkdir -p "$state"
exec 9>"$state/lock"
flock -n 9 || die "another deployment is on"
note() {
    say "deploy: $*"
    printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$state/history"
}

# Containers of a service that run in a version, and those that run in another one.
in_version() { # in_version SERVICE VERSION [not]
    local want id
    want=$(docker image inspect --format '{{.Id}}' "$(image "$1" "$2")")
    for id in $(running "$1"); do
        if [ "$(docker inspect --format '{{.Image}}' "$id")" = "$want" ]; then
            [ -n "${3:-}" ] || echo "$id"
        else
            [ -z "${3:-}" ] || echo "$id"
        fi
    done
}

add() { # add SERVICE VERSION: one more container, healthy; it is removed again when it is not
    local before id
    before=$(compose ps --all --quiet "$1")
    # Those that run stay as they are: only one is added.
    if ! ORCHESTRATOR_VERSION=$2 compose up --detach --no-deps --no-build --no-recreate \
        --scale "$1=$(($(count "$1") + 1))" "$1" >"$state/up.log" 2>&1; then
        cat "$state/up.log" >&2
    fi
    id=$(compose ps --all --quiet "$1" | grep -vxF "$before" | sed -n 1p || true)
    [ -n "$id" ] || {
        say "no container of $1 came up"
        return 1
    }
    if ! wait_healthy "${DEPLOY_SECONDS:-120}" "$id"; then
        say "the last words of the new $1:"
        docker logs --tail 8 "$id" >&2 2>&1 || true
        remove "$id"
        return 1
    fi
}

remove() { # remove CONTAINER…: calmly (it has the grace that the compose file gives)
    local id
    for id; do
        docker stop "$id" >/dev/null 2>&1 || true
        docker rm --force "$id" >/dev/null 2>&1 || true
    done
}

# roll SERVICE VERSION NUMBER: so many containers of the version, and none of another; never fewer than
# that many on the way.
roll() {
    local service=$1 version=$2 target=$3 id
    while id=$(in_version "$service" "$version" not | sed -n 1p) && [ -n "$id" ]; do
        [ "$(count "$service")" -gt "$target" ] || add "$service" "$version" || return 1
        remove "$id"
    done
    while [ "$(count "$service")" -lt "$target" ]; do
        add "$service" "$version" || return 1
    done
}

schema() { compose exec -T postgres psql -U orchestrator -d orchestrator -XAtc 'select coalesce(max(version), 0) from _sqlx_migrations where success' 2>/dev/null || echo 0; }

exec 3>&1 4>&2
declare -A targets
phase=checks
back() { # what a failure leads to
    local code=$? service failed=''
    trap - EXIT INT TERM
    exec 1>&3 2>&4 # a signal may have come in the middle of a redirection
    set +e
    case $phase in
    over) exit "$code" ;;
    checks | backup | migration) note "gave up $wanted at: $phase; nothing was replaced, $old goes on" ;;
    canary)
        note "gave up $wanted at: $phase; its containers are removed, $old was never stopped"
        for service in "${services[@]}"; do
            # shellcheck disable=SC2046 # ids, a word each
            remove $(in_version "$service" "$wanted")
        done
        ;;
    stopped)
        note "$wanted failed with everything stopped; putting back what was before it"
        for service in "${services[@]}"; do
            # shellcheck disable=SC2046 # ids, a word each
            remove $(in_version "$service" "$wanted")
        done
        if [ -z "$saved" ] || ops/scripts/restore.sh postgres "$saved" --yes; then
            for service in "${services[@]}"; do roll "$service" "$old" "${targets[$service]}" || failed=yes; done
        else
            failed=yes
        fi
        if [ -z "$failed" ] && ops/scripts/smoke.sh; then
            note "back: $old runs on the data of before, and the smoke test passes"
        else
            note "the way back to $old failed as well: look at \`make status\`; the backup is ${saved:-none}"
        fi
        ;;
    rolling | smoke)
        if ! ORCHESTRATOR_VERSION=$old compose --profile cli run --rm --no-deps -T cli migrate >"$state/up.log" 2>&1; then
            note "$wanted failed at: $phase, and $old cannot start with the schema as it is now: $wanted stays, as far as it came (make status). When the reason is gone: deploy.sh $wanted goes on"
            tail -2 "$state/up.log" >&2
            remember previous "$old"
            remember version "$wanted"
            exit 1
        fi
        note "$wanted failed at: $phase; back to $old"
        for service in "${services[@]}"; do
            roll "$service" "$old" "${targets[$service]}" || failed=yes
        done
        if [ -z "$failed" ] && ops/scripts/smoke.sh; then
            note "rolled back: $old runs, and the smoke test passes"
        else
            note "the way back to $old failed as well: look at \`make status\` and \`make logs\`"
        fi
        ;;
    esac
    [ "$code" -ne 0 ] || code=1
    exit "$code"
}
trap back EXIT
trap 'exit 130' INT TERM

begun=$SECONDS
note "from $old to $wanted"
compose config --quiet
# Before anything is built: the tag of what runs must not come to mean something else.
if [ "$wanted" = "$old" ]; then
    others=$(for service in "${services[@]}"; do in_version "$service" "$wanted" not; done)
    [ -n "$others" ] || die "$wanted is what runs; a tag is never given to something else"
    old=$(recall previous) # a deployment that was left half-done
    build=''
fi
if [ -n "$build" ] || { [ -z "$rollback" ] && ! docker image inspect "$(image api "$wanted")" >/dev/null 2>&1 && [ "$wanted" = "$(git describe --tags --always --dirty 2>/dev/null || true)" ]; }; then
    say "deploy: building $wanted"
    ORCHESTRATOR_VERSION=$wanted compose --profile cli build api scheduler worker cli
fi
for service in "${services[@]}" cli; do
    docker image inspect "$(image "$service" "$wanted")" >/dev/null 2>&1 || die "there is no image $(image "$service" "$wanted"): --build makes it"
done
for service in "${services[@]}"; do
    targets[$service]=$(count "$service")
    [ -z "${others:-}" ] || targets[$service]=$(recall "targets-$service") # as many as there were before it
    remember "targets-$service" "${targets[$service]}"
    [ "${targets[$service]}" -gt 0 ] || die "no $service runs: start.sh prod first"
done
if ! ops/scripts/healthcheck.sh; then
    [ -n "$rollback" ] || die "the system is not healthy: a deployment would not show whose fault what is"
    say "deploy: not healthy, which may be why we go back"
fi
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
[ "$free" -ge 1024 ] || die "only $free MB are free on this disk"

# What the checkout says of migrations that are to come.
now=$(schema)
unsafe=$(for file in migrations/[0-9]*.sql; do
    number=$(basename "$file" | sed 's/_.*//; s/^0*//')
    [ "$number" -gt "$now" ] && sed -n '/^--/!q; p' "$file" | grep -q 'Safe while old code runs: no' && echo "$file"
done || true)
if [ -n "$unsafe" ] && [ -z "$stop" ]; then
    die "old code does not survive $(tr '\n' ' ' <<<"$unsafe"): say --stop, for an interruption of about a minute"
fi
saved=''
if [ -n "$stop" ]; then
    phase=stopped
    say "deploy: stopping api, scheduler and workers"
    for service in "${services[@]}"; do
        # shellcheck disable=SC2046 # ids, a word each
        remove $(running "$service")
    done
    if [ -n "$backup" ]; then # nothing is written from here on, so it is complete
        ops/scripts/backup.sh postgres
        saved=$(find "${BACKUP_DIR:-backups}/postgres" -name '*.dump' | sort | tail -n 1)
    fi
    ORCHESTRATOR_VERSION=$wanted compose --profile cli run --rm --no-deps -T cli migrate
    say "deploy: starting $wanted"
    for service in "${services[@]}"; do roll "$service" "$wanted" "${targets[$service]}"; done
    ops/scripts/smoke.sh
    phase=over
    remember previous "$old"
    remember version "$wanted"
    note "$wanted runs, with the schema at $(schema); it took $((SECONDS - begun)) s"
    exit
fi

phase=backup
[ -z "$backup" ] || ops/scripts/backup.sh postgres

phase=migration
before=$(schema)
ORCHESTRATOR_VERSION=$wanted compose --profile cli run --rm --no-deps -T cli migrate
after=$(schema)
[ "$before" = "$after" ] || note "the schema went from version $before to $after"

phase=canary
for service in "${services[@]}"; do
    say "deploy: a first $service in $wanted, beside ${targets[$service]} in $old"
    [ -n "$(in_version "$service" "$wanted")" ] || add "$service" "$wanted"
done
ops/scripts/smoke.sh

phase=rolling
for service in "${services[@]}"; do
    say "deploy: replacing ${targets[$service]} of $service"
    roll "$service" "$wanted" "${targets[$service]}"
done

phase=smoke
ops/scripts/smoke.sh
for service in "${services[@]}"; do
    [ "$(in_version "$service" "$wanted" | grep -c .)" = "${targets[$service]}" ] || die "$service does not run ${targets[$service]} times in $wanted"
done

phase=over
remember previous "$old"
remember version "$wanted"
note "$wanted runs; it took $((SECONDS - begun)) s"
