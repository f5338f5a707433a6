#!/usr/bin/env bash
# Starts the system in containers and waits until it is healthy.
#   start.sh dev|prod [--build] [--clean] [--logs]
#
#   dev    docker-compose.yml + docker-compose.dev.yml: source mounted, built again at every change
#   prod   docker-compose.yml + docker-compose.prod.yml: makes secrets that are missing (secrets.sh) first
#   --build   build the images again (prod; dev builds by itself)
#   --clean   stop and remove the containers first; data are kept (make clean-all removes those)
#   --logs    follow the logs afterwards; Ctrl-C ends the following, not the system
#
# To replace a prod system that runs by a new version, use deploy.sh: this one stops before it starts.
set -euo pipefail

build='' clean='' logs='' ORCHESTRATOR_MODE=''
for word; do
    case $word in
    dev | prod) ORCHESTRATOR_MODE=$word ;;
    --build) build=yes ;;
    --clean) clean=yes ;;
    --logs) logs=yes ;;
    -h | --help)
        sed -n '2,13s/^# \{0,1\}//p' "$0"
        exit
        ;;
    *)
        echo "start: \"$word\" is unknown; say start.sh dev|prod [--build] [--clean] [--logs]" >&2
        exit 2
        ;;
    esac
done
[ -n "$ORCHESTRATOR_MODE" ] || {
    echo "start: dev or prod?" >&2
    exit 2
}
export ORCHESTRATOR_MODE
# shellcheck source=ops/scripts/lib.sh
. "$(dirname "$0")/lib.sh"
need docker "see https://docs.docker.com/engine/install/"
need curl

was=$(recall mode)
if [ -n "$was" ] && [ "$was" != "$mode" ] && [ -n "$(compose ps --all --quiet 2>/dev/null)" ]; then
    say "the containers of the mode $was are replaced; their data are kept"
    clean=yes
fi
# Who runs has read its secrets: Compose would leave it running with those of before.
if [ "$mode" = prod ] && [ "$was" = prod ]; then
    for secret in postgres_password redis_password monitoring_password admin_api_key; do
        if [ "${SECRETS_DIR:-.secrets}/$secret" -nt "$state/mode" ]; then
            say "$secret has changed since the last start: the containers are replaced; their data are kept"
            clean=yes
        fi
    done
fi
[ "$mode" != prod ] || ops/scripts/secrets.sh
# From now on somebody waits for a backup.
[ "$mode" != prod ] || [ -e "$metrics/orchestrator_backup.prom" ] || metric orchestrator_backup \
    "orchestrator_backup_expected_since_timestamp_seconds $(date +%s)"
[ -z "$clean" ] || compose down --remove-orphans

if [ "$mode" = prod ]; then
    missing=''
    for image in orchestrator-api orchestrator-scheduler orchestrator-worker orchestrator; do
        docker image inspect "$image:$ORCHESTRATOR_VERSION" >/dev/null 2>&1 || missing=yes
    done
    if [ -n "$build$missing" ]; then
        say "building the images $ORCHESTRATOR_VERSION: minutes, the first time"
        compose --profile cli build api scheduler worker cli
    fi
fi

remember mode "$mode"
[ "$mode" != prod ] || remember version "$ORCHESTRATOR_VERSION"
say "starting"
if [ "$mode" = dev ]; then
    # The first build takes minutes: --wait would look like nothing happens.
    compose up --detach
    say "compiling goes on in the container \`build\`: ops/scripts/start.sh dev --logs, or make logs"
else
    compose up --detach --wait --wait-timeout 300 --no-build
    ops/scripts/healthcheck.sh
fi
say "the API is at $(api_url)"
[ -z "$logs" ] || exec docker compose "${files[@]}" logs --follow --tail 50
