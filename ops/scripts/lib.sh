# shellcheck shell=bash
# What the scripts here share: where the system is, which compose files it runs by, how to say things.
# To be sourced; changes into the root of the repository.
#
#   ORCHESTRATOR_MODE      plain (docker-compose.yml alone), dev or prod; else what start.sh wrote down
#   ORCHESTRATOR_VERSION   the tag of the images in prod; else what deploy.sh wrote down; else latest
#   ORCHESTRATOR_COMPOSE   one more compose file, after the others

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
# shellcheck source=ops/scripts/dotenv.sh
. ops/scripts/dotenv.sh
state=.deploy # what these scripts remember of this machine
metrics=${METRICS_DIR:-$state/metrics} # what they tell Prometheus, by node-exporter's textfile collector

say() { printf '%s  %s\n' "$(date -u +%H:%M:%S)" "$*" >&2; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is needed and is not here${2:+: $2}"; }

remember() { # remember NAME TEXT: whole or not at all
    mkdir -p "$state"
    printf '%s\n' "$2" >"$state/.$1.new"
    mv "$state/.$1.new" "$state/$1"
}
recall() { [ ! -s "$state/$1" ] || cat "$state/$1"; }

# metric NAME LINE…: a file of metrics, whole or not at all; whatever our umask is, node-exporter reads it.
metric() {
    local file=$metrics/$1.prom
    shift
    mkdir -p "$metrics"
    chmod 755 "$metrics"
    printf '%s\n' "$@" >"$file.new"
    chmod 644 "$file.new"
    mv "$file.new" "$file"
}

mode=${ORCHESTRATOR_MODE:-$(recall mode)}
mode=${mode:-plain}
files=(-f docker-compose.yml)
case $mode in
plain) [ ! -f docker-compose.override.yml ] || files+=(-f docker-compose.override.yml) ;;
dev | prod) files+=(-f "docker-compose.$mode.yml") ;;
*) die "ORCHESTRATOR_MODE is \"$mode\"; say plain, dev or prod" ;;
esac
[ -z "${ORCHESTRATOR_COMPOSE:-}" ] || files+=(-f "$ORCHESTRATOR_COMPOSE")

version=${ORCHESTRATOR_VERSION:-$(recall version)}
export ORCHESTRATOR_VERSION=${version:-latest}

compose() { docker compose "${files[@]}" "$@"; }

# Containers of a service that run, an id a line.
running() { compose ps --quiet --status running "$1" 2>/dev/null; }
count() { running "$1" | grep -c . || true; }

# Where the api is reached from here, without a slash at the end. TLS in prod, by a certificate that may
# be signed by nobody: what is asked is this machine itself.
api_url() {
    if [ -n "${ORCHESTRATOR_URL:-}" ]; then
        printf '%s' "${ORCHESTRATOR_URL%/}"
    elif [ "$mode" = prod ]; then
        printf 'https://%s:%s' "$(here "${PUBLISH_ADDRESS:-}")" "${HTTPS_PORT:-443}"
    else
        printf 'http://%s:%s' "$(here "${API_PUBLISH_ADDRESS:-}")" "${API_PORT:-8080}"
    fi
}
here() { case $1 in '' | 0.0.0.0 | '[::]') printf 127.0.0.1 ;; *) printf '%s' "$1" ;; esac; } # here ADDRESS: where we reach what listens there
ask() { curl --silent --show-error --insecure --max-time 20 "$@"; }

admin_key() { # the key of an admin, from where this kind of system has it; empty when nowhere
    if [ -n "${ORCHESTRATOR_API_KEY:-}" ]; then
        printf '%s' "$ORCHESTRATOR_API_KEY"
    elif [ "$mode" = prod ] && [ -s "${SECRETS_DIR:-.secrets}/admin_api_key" ]; then
        cat "${SECRETS_DIR:-.secrets}/admin_api_key"
    elif [ -s .orchestrator/admin.key ]; then
        cat .orchestrator/admin.key
    fi
}

# wait_healthy SECONDS CONTAINER…: until all are, or says which is not.
wait_healthy() {
    local until=$((SECONDS + $1)) id now
    shift
    for id; do
        while :; do
            now=$(docker inspect --format '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' "$id" 2>/dev/null || echo gone)
            case $now in
            "running healthy" | "running ") break ;;
            gone* | exited* | dead* | "running unhealthy" | restarting*)
                say "$(docker inspect --format '{{.Name}}' "$id" 2>/dev/null || echo "$id") is $now"
                return 1
                ;;
            esac
            if [ "$SECONDS" -ge "$until" ]; then
                say "$(docker inspect --format '{{.Name}}' "$id") is still $now"
                return 1
            fi
            sleep 0.5
        done
    done
}
