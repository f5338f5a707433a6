#!/bin/sh
# Makes the secrets of docker-compose.prod.yml that are missing; never touches one that is there.
#   ops/scripts/secrets.sh [SERVER_NAME]     into SECRETS_DIR (.secrets), or what it says
#
# A file is one secret: postgres_password, redis_password, monitoring_password, grafana_password, admin_api_key, tls.crt and
# tls.key. Replace the last two by real ones: these are signed by nobody, so that the system starts.
# alert_webhook_url is made empty: yours to fill.
# The folder is for its owner alone; the files in it are readable by all, because the containers that
# get them mounted run as users of their own.
#
# Passwords of a system that has run without them (docker-compose.yml alone drew its own into a volume)
# are taken over.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=ops/scripts/dotenv.sh
. ops/scripts/dotenv.sh
folder=${SECRETS_DIR:-.secrets}
name=${1:-${SERVER_NAME:-localhost}}

case $name in
*[!A-Za-z0-9.-]* | '')
    echo "secrets: \"$name\" is no name of a server" >&2
    exit 2
    ;;
esac

umask 077
[ -d "$folder" ] || mkdir -p "$folder"
chmod 700 "$folder"

random() { LC_ALL=C tr -dc '0-9a-f' </dev/urandom | head -c 64; }

put() { # put NAME: standard input, whole or not at all
    cat >"$folder/.$1.new"
    chmod 444 "$folder/.$1.new"
    mv "$folder/.$1.new" "$folder/$1"
    echo "secrets: made $folder/$1" >&2
}

drawn() { # drawn NAME: what first-start wrote into the volume, if anything
    command -v docker >/dev/null 2>&1 && docker volume inspect orchestrator_passwords >/dev/null 2>&1 || return 0
    docker compose -f docker-compose.yml run --rm --no-deps -T --entrypoint cat first-start "/run/passwords/$1" 2>/dev/null || true
}

for secret in postgres_password redis_password; do
    if ! [ -s "$folder/$secret" ]; then
        value=$(drawn "$secret")
        printf '%s\n' "${value:-$(random)}" | put "$secret"
    fi
done
for secret in monitoring_password grafana_password admin_api_key; do
    [ -s "$folder/$secret" ] || printf '%s\n' "$(random)" | put "$secret"
done
# Where Alertmanager sends to: only you know. Empty, it tells nobody.
[ -e "$folder/alert_webhook_url" ] || : | put alert_webhook_url

if ! [ -s "$folder/tls.crt" ] || ! [ -s "$folder/tls.key" ]; then
    command -v openssl >/dev/null 2>&1 || {
        echo "secrets: put a certificate into $folder/tls.crt and its key into $folder/tls.key;" \
            "openssl, which would make one to begin with, is not here" >&2
        exit 1
    }
    draft=$(mktemp -d)
    trap 'rm -rf "$draft"' EXIT
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -subj "/CN=$name" -addext "subjectAltName=DNS:$name,DNS:localhost,IP:127.0.0.1" \
        -keyout "$draft/key" -out "$draft/crt" 2>/dev/null
    put tls.key <"$draft/key"
    put tls.crt <"$draft/crt"
    echo "secrets: the certificate for $name is signed by nobody: replace it before others come" >&2
fi
