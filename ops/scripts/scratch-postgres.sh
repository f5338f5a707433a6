#!/bin/sh
# Proves a backup: makes a server of its own that nobody else can reach, restores into it what comes on
# standard input, and prints what it then holds (sql/fingerprint.sql, sql/invariants.sql).
#   scratch-postgres.sh dump <FILE       a logical backup (pg_dump --format=custom)
#   scratch-postgres.sh base <FILE       a base backup (pg_basebackup -Ft -X fetch | gzip)
# Needs PostgreSQL's programs of the right version, and not to be root: backup.sh runs it in a container
# of the database's image, or as the user postgres. Everything it makes is removed.
set -eu
kind=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [ ! -x "$folder/initdb" ] || PATH=$folder:$PATH
done
umask 077
scratch=$(mktemp -d)
finish() {
    pg_ctl -D "$scratch/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM
fail() {
    echo "scratch-postgres: $1" >&2
    tail -n 20 "$scratch/log" >&2 2>/dev/null || true
    exit 1
}
# Reached through a socket in a folder of ours alone; not careful with the disk, for nothing is kept.
start() {
    pg_ctl -D "$scratch/data" -l "$scratch/log" -w -t 600 \
        -o "-c listen_addresses='' -c unix_socket_directories='$scratch' -c fsync=off -c archive_mode=off -c shared_preload_libraries='' -c max_wal_size=2GB $1" \
        start >/dev/null || fail "the scratch server does not start"
}

case $kind in
dump)
    initdb -D "$scratch/data" -U orchestrator --auth=trust --no-sync >/dev/null
    start ''
    psql -h "$scratch" -U orchestrator -d postgres -Xq -c 'create database orchestrator'
    pg_restore -h "$scratch" -U orchestrator -d orchestrator --exit-on-error --no-owner || fail "pg_restore refuses the backup"
    ;;
base)
    mkdir "$scratch/data"
    gzip -dc | tar -xf - -C "$scratch/data"
    pg_verifybackup --no-parse-wal --exit-on-error "$scratch/data" >/dev/null || fail "files differ from the backup's manifest"
    rm -f "$scratch/data/postmaster.pid"
    # Neither its passwords nor its settings: whoever has the folder may come in, and that is us.
    echo 'local all all trust' >"$scratch/hba"
    : >"$scratch/conf"
    start "-c hba_file='$scratch/hba' -c config_file='$scratch/conf'"
    ;;
*) fail "say dump or base" ;;
esac
psql -h "$scratch" -U orchestrator -d orchestrator -XqAt -v ON_ERROR_STOP=1 -f "$here/sql/fingerprint.sql" -f "$here/sql/invariants.sql" || fail "the restored database cannot be read"
