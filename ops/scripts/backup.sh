#!/usr/bin/env bash
# Makes a backup, and proves it before it counts as one.
#   backup.sh postgres   logical: pg_dump, restored into a server of its own and compared table by table
#   backup.sh base       physical: pg_basebackup, verified and started; with the WAL archive any moment after it
#   backup.sh wal        copies the WAL archive of the containers into BACKUP_DIR/wal
#   backup.sh redis      an RDB file, loaded by a server of its own
#   backup.sh config     settings, secrets and compose files, encrypted with age; without a recipient refused
#   backup.sh full       all of these (--without-config leaves the configuration out)
#   backup.sh prune | list
# docs/backup.md says what is lost at worst and how long a restore takes; ops/scripts/backup-lib.sh, which
# variables are read. Nothing is written outside BACKUP_DIR (backups).
set -euo pipefail
# shellcheck source=ops/scripts/backup-lib.sh
. "$(dirname "$0")/backup-lib.sh"
keep_days=${BACKUP_KEEP_DAYS:-14}
keep_min=${BACKUP_KEEP_MIN:-3}

# told KIND BYTES: for Prometheus (the alert BackupTooOld).
told() {
    metric "orchestrator_backup_$1" "orchestrator_backup_last_success_timestamp_seconds{kind=\"$1\"} $(date +%s)" \
        "orchestrator_backup_bytes{kind=\"$1\"} $2" "orchestrator_backup_duration_seconds{kind=\"$1\"} $SECONDS"
}

# keep KIND DRAFT NAME LINES…: gives a proven draft its name and a manifest.
keep() {
    local kind=$1 draft=$2 name=$3
    shift 3
    {
        echo "kind $kind"
        echo "taken_at $stamp"
        echo "bytes $(size "$draft")"
        echo "sha256 $(sha "$draft")"
        printf '%s\n' "$@"
    } >"$backups/$kind/$name.manifest"
    sync "$draft" 2>/dev/null || sync
    mv "$draft" "$backups/$kind/$name"
    say "backup: $backups/$kind/$name, $(size "$backups/$kind/$name") bytes"
    told "$kind" "$(size "$backups/$kind/$name")"
}
draft_of() {
    mkdir -p "$backups/$1"
    printf '%s' "$backups/$1/.$2.partial"
}

postgres() {
    local draft begun=$SECONDS snapshot there found bad
    draft=$(draft_of postgres "$stamp")
    # A transaction holds the snapshot that the dump and the fingerprint are both taken from.
    coproc HOLDER { pg psql -XqAt -v ON_ERROR_STOP=1; }
    local out=${HOLDER[0]} in=${HOLDER[1]} holder=$HOLDER_PID
    printf '%s\n' "set idle_in_transaction_session_timeout = 0;" \
        "begin isolation level repeatable read read only;" "select pg_export_snapshot();" >&"$in"
    read -r snapshot <&"$out" || die "the database does not answer"
    pg pg_dump --format=custom --compress=6 --no-owner --snapshot="$snapshot" >"$draft"
    cat ops/scripts/sql/fingerprint.sql >&"$in"
    printf '%s\n' "commit;" "\\q" >&"$in"
    eval "exec $in>&-"
    there=$(cat <&"$out")
    wait "$holder" || die "the fingerprint could not be taken"
    say "backup: dumped $(size "$draft") bytes in $((SECONDS - begun)) s; restoring it to see"

    found=$(scratch dump <"$draft")
    if [ -z "$there" ] || [ "$(only fingerprint <<<"$found")" != "$there" ]; then
        diff <(echo "$there") <(only fingerprint <<<"$found") >&2 || true
        die "what was restored is not what was there: this is no backup (left in $draft)"
    fi
    bad=$(violations <<<"$found")
    [ -z "$bad" ] || say "backup: complete, but the data contradict themselves, here as there: $bad"
    keep postgres "$draft" "$stamp.dump" "server $(pg psql -XqAt -c 'show server_version')" \
        "seconds $((SECONDS - begun))" "$found"
}

base() {
    local draft begun=$SECONDS found
    draft=$(draft_of base "$stamp")
    # With the WAL it needs in it, so that it can be started without the archive.
    if [ -n "$plain" ]; then
        pg_basebackup --dbname "$DATABASE_URL" --pgdata=- --format=tar --wal-method=fetch --checkpoint=fast --no-password
    else
        compose exec -T postgres pg_basebackup --username orchestrator --pgdata=- --format=tar --wal-method=fetch --checkpoint=fast
    fi | gzip -1 >"$draft"
    say "backup: copied $(size "$draft") bytes in $((SECONDS - begun)) s; starting it to see"
    found=$(scratch base <"$draft")
    [ -n "$(only fingerprint <<<"$found")" ] || die "it starts and holds nothing (left in $draft)"
    keep base "$draft" "$stamp.tar.gz" "cluster $(cluster)" "seconds $((SECONDS - begun))" "$found"
}

# The archive of a cluster is in a folder named after it (archive-wal.sh).
cluster() { pg psql -XqAt -c 'select system_identifier from pg_control_system()'; }

wal() {
    [ -z "$plain" ] || die "the archive of plain servers is where their archive_command puts it"
    local id until name new=0 segment
    id=$(cluster)
    mkdir -p "$backups/wal/$id"
    # What is begun goes with it.
    segment=$(pg psql -XqAt -c 'select pg_walfile_name(pg_switch_wal() - 1)')
    until=$((SECONDS + 90))
    until compose exec -T postgres test -e "/wal-archive/$id/$segment.gz"; do
        [ "$SECONDS" -lt "$until" ] || die "the archive does not advance: see make logs SERVICE=postgres"
        sleep 0.5
    done
    for name in $(compose exec -T postgres ls "/wal-archive/$id" | tr -d '\r'); do
        [ ! -s "$backups/wal/$id/$name" ] || continue
        compose exec -T postgres cat "/wal-archive/$id/$name" >"$backups/wal/$id/.$name.partial"
        mv "$backups/wal/$id/.$name.partial" "$backups/wal/$id/$name"
        new=$((new + 1))
    done
    say "backup: $new new segments in $backups/wal/$id"
    told wal "$(du -sk "$backups/wal/$id" | awk '{ print $1 * 1024 }')"
}

redis_backup() {
    local draft found
    draft=$(draft_of redis "$stamp")
    redis --rdb - >"$draft" 2>/dev/null || die "Redis gave no RDB file"
    # Loaded, not only looked at.
    # shellcheck disable=SC2016 # expanded by the shell that runs it
    local load='cd "$(mktemp -d)" && cat >dump.rdb && redis-check-rdb dump.rdb >/dev/null &&
        { redis-server --port 0 --unixsocket "$PWD/s" --save "" --appendonly no --daemonize yes --logfile log >/dev/null; } &&
        until redis-cli -s s ping 2>/dev/null | grep -q PONG; do sleep 0.1; done &&
        redis-cli -s s dbsize && redis-cli -s s shutdown nosave'
    if [ -n "$plain" ]; then
        found=$(sh -c "$load" <"$draft")
    else
        found=$(in_image --user redis --entrypoint sh "$(image_of redis)" -c "$load" <"$draft")
    fi
    [[ $found =~ ^[0-9]+ ]] || die "the RDB file cannot be loaded: $found"
    keep redis "$draft" "$stamp.rdb" "keys ${found%%[!0-9]*}"
}

config() {
    local recipient=${BACKUP_AGE_RECIPIENT:-} draft path
    [ -n "$recipient" ] || die "a backup of the configuration holds every secret, and is never written in clear: set BACKUP_AGE_RECIPIENT (age-keygen makes one)"
    need age "https://age-encryption.org; Debian: apt install age"
    local paths=()
    for path in docker-compose*.yml ops/config ops/nginx ops/monitoring .env "${SECRETS_DIR:-.secrets}" "$state/version" "$state/previous" "$state/mode" "${MCP_CONFIG:-}"; do
        [ -z "$path" ] || [ ! -e "$path" ] || paths+=("$path")
    done
    draft=$(draft_of config "$stamp")
    # The passwords that first-start drew are a part of it: a system without secrets' files has no other.
    if [ -z "$plain" ]; then
        compose run --rm --no-deps -T --entrypoint tar first-start -C /run -cf - passwords 2>/dev/null
    else
        : | tar -cf - --files-from /dev/null
    fi | { # two archives in one stream
        local inner
        inner=$(mktemp -d)
        cat >"$inner/passwords.tar"
        tar -cf - "${paths[@]}" -C "$inner" passwords.tar
        rm -rf "$inner"
    } | age --encrypt --recipient "$recipient" >"$draft"
    keep config "$draft" "$stamp.tar.age" "recipient $recipient" "${paths[@]/#/path }"
}

prune() {
    local kind file old name
    for kind in postgres base redis config; do
        [ -d "$backups/$kind" ] || continue
        find "$backups/$kind" -name '.*.partial' -mmin +1440 -delete
        old=$(find "$backups/$kind" -maxdepth 1 -type f ! -name '*.manifest' ! -name '.*' | sort | head -n "-$keep_min")
        for file in $old; do
            [ -n "$(find "$file" -mtime "+$keep_days")" ] || continue
            rm -f "$file" "$file.manifest"
            say "backup: removed $file, older than $keep_days days"
        done
    done
    # WAL before the oldest base backup of its cluster serves nobody.
    local id first here=''
    [ -n "$plain" ] || [ "$mode" != prod ] || [ -z "$(running postgres)" ] || here=$(cluster)
    local ids
    mapfile -t ids < <(cat "$backups"/base/*.manifest 2>/dev/null | sed -n 's/^cluster //p' | sort -u)
    for id in "${ids[@]}"; do
        file=$(grep -lx "cluster $id" "$backups"/base/*.manifest | sort | sed -n 1p)
        file=${file%.manifest}
        first=$(gzip -dc "$file" | tar -xOf - backup_label | sed -nE 's/^START WAL LOCATION: .*\(file ([0-9A-F]{24})\)$/\1/p')
        [ -n "$first" ] || die "$file has no label"
        for old in "$backups/wal/$id"/????????????????????????.gz; do
            [ -e "$old" ] || continue
            name=$(basename "$old" .gz)
            # The order of names is the order of WAL, but for the timeline, which leads them.
            [[ ! ${name:8} < ${first:8} ]] || rm -f "$old"
        done
        [ "$id" != "$here" ] || compose exec -T postgres pg_archivecleanup -x .gz "/wal-archive/$id" "$first"
    done
}

list() {
    local manifest
    find "$backups" -name '*.manifest' 2>/dev/null | sort | while read -r manifest; do
        printf '%-52s %12s bytes  %s\n' "${manifest%.manifest}" "$(sed -n 's/^bytes //p' "$manifest")" \
            "$(sed -nE 's/^(seconds|keys) (.*)/\1 \2/p' "$manifest" | tr '\n' ' ')"
    done
}

mkdir -p "$backups"
chmod 700 "$backups"
case ${1:-} in
postgres | base | wal | config | list) "$1" ;;
redis) redis_backup ;;
prune) prune ;;
full)
    # Said before anything is done, so that nobody finds half a backup later.
    [ "${2:-}" = --without-config ] || [ -n "${BACKUP_AGE_RECIPIENT:-}" ] || die "set BACKUP_AGE_RECIPIENT, or say --without-config"
    postgres
    base
    [ -n "$plain" ] || [ "$mode" != prod ] || wal
    if [ -z "$plain" ] || [ -n "$REDIS_URL" ]; then redis_backup; fi
    [ "${2:-}" = --without-config ] || config
    prune
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
