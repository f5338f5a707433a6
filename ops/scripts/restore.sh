#!/usr/bin/env bash
# Puts a backup back.
#   restore.sh postgres [FILE] [--yes]    the database; the one that was there stays, under another name
#   restore.sh pitr [FILE] [--to MOMENT] [--yes]
#                                         the database as it was at a moment: base backup + WAL archive
#   restore.sh redis [FILE] [--yes]       what Redis holds is replaced
#   restore.sh config FILE [--into DIR]   decrypts into a folder (restored-config); nothing is overwritten
#   restore.sh full [--yes]               the newest of postgres and redis
# FILE: else the newest in BACKUP_DIR. It is checked against its manifest first, and what was restored is
# compared with it afterwards. With containers, the services are stopped meanwhile. With plain servers
# (DATABASE_URL), stop them yourself; pitr then wants --into DIR --wal DIR, and makes a data folder.
set -euo pipefail
# shellcheck source=ops/scripts/backup-lib.sh
. "$(dirname "$0")/backup-lib.sh"

what=${1:-} file='' yes='' moment='' into='' archive=''
[ $# -eq 0 ] || shift
while [ $# -gt 0 ]; do
    case $1 in
    --yes) yes=yes ;;
    --to | --into | --wal)
        [ $# -ge 2 ] || die "$1 wants a value"
        case $1 in --to) moment=$2 ;; --into) into=$2 ;; --wal) archive=$2 ;; esac
        shift
        ;;
    -*) die "$1 is unknown" ;;
    *) file=$1 ;;
    esac
    shift
done

stopped=''
stop_services() {
    [ -z "$plain" ] || return 0
    say "restore: stopping api, scheduler and worker"
    compose stop api scheduler worker >/dev/null 2>&1
    stopped=yes
}
start_services() {
    [ -n "$stopped" ] || return 0
    say "restore: starting api, scheduler and worker"
    stopped=''
    # The containers that there are, as many as there were.
    compose start api scheduler worker >/dev/null 2>&1
    # shellcheck disable=SC2046 # ids, a word each
    wait_healthy 180 $(running api) $(running scheduler) $(running worker)
}
# Whatever happened: a service that was stopped here is started again.
trap 'code=$?; trap - EXIT; start_services || code=1; exit $code' EXIT

# Compares the database with the manifest of the backup that it is made of.
compare() { # compare DATABASE
    local found wanted bad
    found=$(PG_DATABASE=$1 pg psql -XqAt -v ON_ERROR_STOP=1 <<<"$(cat ops/scripts/sql/fingerprint.sql ops/scripts/sql/invariants.sql)")
    wanted=$(only fingerprint <"$file.manifest" 2>/dev/null || true)
    if [ -n "$wanted" ]; then
        diff <(echo "$wanted") <(only fingerprint <<<"$found") >&2 || die "what was restored is not what was saved; the database that was there is untouched"
        say "restore: $(wc -l <<<"$wanted" | tr -d ' ') tables are what they were"
    fi
    bad=$(violations <<<"$found")
    [ -z "$bad" ] || say "restore: the data contradict themselves, as they did when they were saved: $bad"
}

postgres() {
    local begun=$SECONDS name=orchestrator maintenance=postgres new old
    [ -z "$plain" ] || name=$(sed -E 's#^postgres(ql)?://[^/]*/([^?]*).*#\2#' <<<"$DATABASE_URL")
    file=$(chosen postgres "$file")
    new=${name}_new_${stamp,,} old=${name}_before_${stamp,,}
    sure "The database $name becomes what $file holds; what is there now is kept as $old"
    stop_services
    sql() { PG_DATABASE=$maintenance pg psql -XqAt -v ON_ERROR_STOP=1 -c "$1"; }
    sql "create database \"$new\""
    if ! PG_DATABASE=$new pg pg_restore --exit-on-error --no-owner <"$file"; then
        sql "drop database \"$new\""
        die "pg_restore failed; the database that was there is untouched"
    fi
    compare "$new"
    # Nobody comes in between the two renames.
    if [ "$(sql "select count(*) from pg_database where datname = '$name'")" = 1 ]; then
        sql "alter database \"$name\" allow_connections false"
        sql "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '$name'" >/dev/null
        sql "alter database \"$name\" rename to \"$old\""
    fi
    sql "alter database \"$new\" rename to \"$name\""
    PG_DATABASE=$name pg psql -XqAt -c 'analyze' >/dev/null
    start_services
    say "restore: done in $((SECONDS - begun)) s. When all is well: drop database \"$old\""
}

pitr() {
    local begun=$SECONDS
    file=$(chosen base "$file")
    [ -z "$moment" ] || [[ $moment =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)$ ]] || die "--to wants a moment with its zone, as 2026-11-25T08:30:00Z"
    if [ -n "$plain" ] || [ -n "$into" ]; then
        if [ -z "$into" ] || ! [ -d "$archive" ]; then die "say --into DIR (the data folder to make) and --wal DIR (the archive)"; fi
        sh ops/scripts/unpack-base.sh "$into" "$(cd "$archive" && pwd)" "$moment" <"$file"
        say "restore: $into is ready; start PostgreSQL on it, and it recovers by itself"
        return
    fi
    [ "$mode" = prod ] || die "only prod archives WAL"
    sure "All data of PostgreSQL are replaced by what they were at ${moment:-the end of the WAL archive}"
    # What is not archived yet, if the server still can.
    if [ -n "$(running postgres)" ]; then ops/scripts/backup.sh wal || say "restore: the last WAL could not be saved"; fi
    stop_services
    compose stop postgres >/dev/null 2>&1
    in_data() { compose run --rm --no-deps -T --volume "$PWD/ops/scripts:/scripts:ro" --entrypoint sh postgres "$@"; }
    # shellcheck disable=SC2016 # expanded in the container
    in_data -c 'find "$PGDATA" -mindepth 1 -delete; exec sh /scripts/unpack-base.sh "$PGDATA" /wal-archive "$1"' sh "$moment" <"$file"
    # The archive's own volume may be as new as the data's.
    if [ -d "$backups/wal" ]; then tar -cf - -C "$backups/wal" . | in_data -c 'tar -xf - -C /wal-archive'; fi
    say "restore: the base backup is in place after $((SECONDS - begun)) s; replaying WAL"
    compose up --detach --no-deps --no-build postgres >/dev/null 2>&1
    until [ "$(pg psql -XqAt -c 'select pg_is_in_recovery()' 2>/dev/null)" = f ]; do
        [ -n "$(running postgres)" ] || { compose logs --tail 20 postgres >&2; die "PostgreSQL does not recover"; }
        sleep 0.5
    done
    say "restore: recovered up to $(pg psql -XqAt -c "select coalesce(max(seen_at)::text, 'a time without services') from process") after $((SECONDS - begun)) s"
    compose restart postgres-exporter >/dev/null 2>&1 || true
    start_services
    say "restore: done in $((SECONDS - begun)) s. Take a new base backup: make db-backup KIND=base"
}

# Redis copies the file's content from a second server that was started on it.
redis_restore() {
    local begun=$SECONDS port=6390 helper folder state_now
    file=$(chosen redis "$file")
    sure "What Redis holds becomes what $file holds"
    stop_services
    if [ -n "$plain" ]; then
        folder=$(mktemp -d)
        cp "$file" "$folder/dump.rdb"
        redis-server --port "$port" --bind 127.0.0.1 --dir "$folder" --save '' --appendonly no --daemonize yes --pidfile "$folder/pid" --logfile "$folder/log" >/dev/null
        stop_helper() { kill "$(cat "$folder/pid")" && rm -rf "$folder"; }
    else
        helper=$(docker create --network "container:$(running redis | sed -n 1p)" --cap-drop ALL --user redis "$(image_of redis)" \
            redis-server --port "$port" --bind 127.0.0.1 --dir /data --save '' --appendonly no)
        folder=$(mktemp -d)
        cp "$file" "$folder/dump.rdb"
        chmod 644 "$folder/dump.rdb"
        docker cp --quiet "$folder/dump.rdb" "$helper:/data/dump.rdb" 2>/dev/null || docker cp "$folder/dump.rdb" "$helper:/data/dump.rdb" >/dev/null
        rm -rf "$folder"
        docker start "$helper" >/dev/null
        stop_helper() { docker rm --force --volumes "$helper" >/dev/null; }
    fi
    redis replicaof 127.0.0.1 "$port" >/dev/null
    local until=$((SECONDS + 120))
    until state_now=$(redis info replication) && grep -q 'master_link_status:up' <<<"$state_now" && grep -q 'master_sync_in_progress:0' <<<"$state_now"; do
        if [ "$SECONDS" -ge "$until" ]; then
            redis replicaof no one >/dev/null
            stop_helper
            die "Redis did not take the file within 120 s"
        fi
        sleep 0.2
    done
    redis replicaof no one >/dev/null
    stop_helper
    say "restore: Redis holds $(redis dbsize | tr -dc 0-9) keys, $(sed -n 's/^keys //p' "$file.manifest" 2>/dev/null || echo '?') were saved; done in $((SECONDS - begun)) s"
    start_services
}

config() {
    need age
    [ -n "$file" ] || die "which file?"
    file=$(chosen config "$file")
    into=${into:-restored-config}
    [ ! -e "$into" ] || die "$into is there already"
    [ -n "${BACKUP_AGE_IDENTITY:-}" ] || die "set BACKUP_AGE_IDENTITY to the file of the key that can read it"
    mkdir -m 700 "$into"
    age --decrypt --identity "$BACKUP_AGE_IDENTITY" "$file" | tar -xf - -C "$into"
    say "restore: the configuration is in $into; passwords.tar is the volume \`passwords\`. Copy what you want, then remove it"
}

case $what in
postgres | pitr | config) "$what" ;;
redis) redis_restore ;;
full)
    sure "Database and Redis become what their newest backups hold"
    yes=yes
    postgres
    file=''
    redis_restore
    ;;
*)
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
