# shellcheck shell=bash
# What backup.sh, restore.sh and drill.sh share. To be sourced; sources lib.sh.
#
# Two kinds of system: with DATABASE_URL (or DATABASE_URL_FILE; REDIS_URL alike) plain servers, by the
# programs on this machine; without, the containers of docker compose, by the programs in them.
#
#   BACKUP_DIR               backups: for its owner alone
#   BACKUP_KEEP_DAYS=14      older ones are removed, but BACKUP_KEEP_MIN=3 of each kind always stay
#   BACKUP_AGE_RECIPIENT     who can read a backup of the configuration (age1… or ssh-ed25519 …)
# shellcheck source=ops/scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

umask 077
backups=${BACKUP_DIR:-backups}
# shellcheck disable=SC2034 # for those who source this
stamp=$(date -u +%Y%m%dT%H%M%SZ)

from_file() { if [ -n "${2:-}" ]; then cat "$2"; else printf '%s' "$1"; fi; }
DATABASE_URL=$(from_file "${DATABASE_URL:-}" "${DATABASE_URL_FILE:-}")
REDIS_URL=$(from_file "${REDIS_URL:-}" "${REDIS_URL_FILE:-}")

plain=''
[ -z "$DATABASE_URL$REDIS_URL" ] || plain=yes
[ -n "$plain" ] || need docker "or set DATABASE_URL"

# Programs get the password by the environment: arguments can be seen by everybody on this machine.
decoded() { local text=${1//+/ }; printf '%b' "${text//%/\\x}"; }
if [[ $DATABASE_URL =~ ^(postgres(ql)?://[^:@/]*):([^@/]*)@(.*)$ ]]; then
    PGPASSWORD=$(decoded "${BASH_REMATCH[3]//+/%2B}")
    export PGPASSWORD
    DATABASE_URL=${BASH_REMATCH[1]}@${BASH_REMATCH[4]}
fi
# The same server, another database.
url_of() { sed -E 's#^(postgres(ql)?://[^/]*)/[^?]*#\1/'"$1"'#' <<<"$DATABASE_URL"; }

# pg PROGRAM ARGUMENT…: one of PostgreSQL's, connected to the database (or to PG_DATABASE).
pg() {
    local program=$1
    shift
    if [ -n "$plain" ]; then
        local url=$DATABASE_URL
        [ -z "${PG_DATABASE:-}" ] || url=$(url_of "$PG_DATABASE")
        "$program" --dbname "$url" "$@"
    else
        compose exec -T postgres "$program" --username orchestrator --dbname "${PG_DATABASE:-orchestrator}" "$@"
    fi
}

# redis ARGUMENT…: redis-cli, connected.
redis() {
    if [ -n "$plain" ]; then
        [[ $REDIS_URL =~ ^redis://(([^:@/]*):([^@/]*)@)?([^:/@]+)(:([0-9]+))?(/([0-9]+))?$ ]] || die "REDIS_URL has a form that is not known here"
        REDISCLI_AUTH=$(decoded "${BASH_REMATCH[3]}") redis-cli -h "${BASH_REMATCH[4]}" -p "${BASH_REMATCH[6]:-6379}" "$@"
    else
        # shellcheck disable=SC2016 # expanded in the container
        compose exec -T redis sh -c 'export REDISCLI_AUTH=$(cat /run/passwords/redis_password); exec redis-cli "$@"' redis-cli "$@"
    fi
}

image_of() { docker inspect --format '{{.Config.Image}}' "$(running "$1" | sed -n 1p)"; }
# In a container without a network that is gone afterwards; standard input goes in.
in_image() { docker run --rm --interactive --network none --cap-drop ALL --security-opt no-new-privileges "$@"; }

# scratch KIND <FILE: what scratch-postgres.sh prints.
scratch() {
    if [ -z "$plain" ]; then
        in_image --user postgres --volume "$PWD/ops/scripts:/scripts:ro" --entrypoint sh "${POSTGRES_IMAGE:-$(image_of postgres)}" /scripts/scratch-postgres.sh "$1"
    elif [ "$(id -u)" = 0 ]; then
        # PostgreSQL does not run as root; its user may not be able to look into this folder.
        local copy
        copy=$(mktemp -d)
        cp -R ops/scripts/scratch-postgres.sh ops/scripts/sql "$copy/"
        chmod -R go+rX "$copy"
        local code=0
        setpriv --reuid postgres --regid postgres --init-groups env -u PGPASSWORD HOME=/tmp TMPDIR=/tmp sh "$copy/scratch-postgres.sh" "$1" || code=$?
        rm -rf "$copy"
        return "$code"
    else
        env -u PGPASSWORD sh ops/scripts/scratch-postgres.sh "$1"
    fi
}

# Counts of exceptions in the output of sql/invariants.sql that are not zero.
violations() { grep '^invariant ' | grep -v ' 0$' || true; }
only() { grep "^$1 " || true; }
size() { wc -c <"$1" | tr -d ' '; }
sha() { sha256sum "$1" | cut -d' ' -f1; }

# The newest backup of a kind, or the file that was named; checked against its manifest.
chosen() { # chosen KIND [FILE]
    local file=${2:-}
    [ -n "$file" ] || file=$(find "$backups/$1" -maxdepth 1 -type f ! -name '*.manifest' ! -name '*.partial' 2>/dev/null | sort | tail -1)
    [ -n "$file" ] || die "there is no backup of $1 in $backups/$1"
    [ -s "$file" ] || die "$file is not there, or is empty"
    if [ -s "$file.manifest" ]; then
        [ "$(sed -n 's/^sha256 //p' "$file.manifest")" = "$(sha "$file")" ] || die "$file is not what its manifest says: do not use it"
    else
        say "$file has no manifest: it cannot be checked"
    fi
    printf '%s' "$file"
}

sure() { # sure SENTENCE: asks, unless --yes was said
    [ -z "${yes:-}" ] || return 0
    [ -t 0 ] || die "$1: say --yes"
    local answer
    read -r -p "$1. Type yes: " answer
    [ "$answer" = yes ] || die "nothing was done"
}
