#!/usr/bin/env bash
# Practises the loss of the data, and measures how long it takes to have them back.
#   drill.sh                  on servers of its own, made for it: nothing of yours is touched. With
#                             DATABASE_URL the data are a copy of that database, else a sample (DRILL_RUNS=10000
#                             finished runs)
#   drill.sh --compose --yes  the real thing: backs the containers' system up, REMOVES ITS VOLUMES, restores.
#                             For a system that nobody needs at the moment
# Own servers: logical backup → drop the database → restore → compare; base backup + WAL archive → an
# accident → back to the second before it; and the loss of the disk, without warning: how many of the rows
# that were committed until then are missing afterwards.
set -euo pipefail
kind=own yes=''
for word; do
    case $word in
    --compose) kind=compose ;;
    --yes) yes=yes ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
done
# shellcheck source=ops/scripts/backup-lib.sh
. "$(dirname "$0")/backup-lib.sh"
result() { printf '%-58s %s\n' "$1" "$2"; }
now_ms() { date +%s%3N; }
since() { printf '%d.%03d s' $((($(now_ms) - $1) / 1000)) $((($(now_ms) - $1) % 1000)); }

# Fingerprints of whatever `pg` is connected to.
prints() { pg psql -XqAt -v ON_ERROR_STOP=1 <ops/scripts/sql/fingerprint.sql; }

own() {
    local begun moment before after bin port lost rows first last shown
    for bin in /usr/lib/postgresql/*/bin; do [ ! -x "$bin/initdb" ] || PATH=$bin:$PATH; done
    need initdb "PostgreSQL's server programs"
    user='' scratch=$(mktemp -d) # not local: the trap reads them
    chmod 711 "$scratch"
    as() { if [ -n "$user" ]; then setpriv --reuid "$user" --regid "$user" --init-groups env -u PGPASSWORD HOME=/tmp "$@"; else "$@"; fi; }
    if [ "$(id -u)" = 0 ]; then
        user=postgres
        chown postgres:postgres "$scratch"
        cp -R ops/scripts "$scratch/scripts"
        chmod -R go+rX "$scratch/scripts"
    else
        ln -s "$PWD/ops/scripts" "$scratch/scripts"
    fi
    stop() { as pg_ctl -D "$scratch/$1" -m immediate -w stop >/dev/null 2>&1 || true; }
    finish() {
        stop data
        stop again
        stop third
        rm -rf "$scratch"
    }
    trap finish EXIT
    port=$((20000 + RANDOM % 20000))
    # serve FOLDER: on a socket in $scratch, archiving as in prod but for the time, which is measured.
    serve() {
        as pg_ctl -D "$scratch/$1" -l "$scratch/$1.log" -w -t 600 -o "-p $port -c listen_addresses='' \
            -c unix_socket_directories='$scratch' -c wal_level=replica -c archive_mode=on -c archive_timeout=${DRILL_ARCHIVE_SECONDS:-10} \
            -c archive_command='sh $scratch/scripts/archive-wal.sh \"%p\" \"%f\" $scratch/archive'" start >/dev/null || {
            tail -20 "$scratch/$1.log" >&2
            die "the server does not start"
        }
    }
    as mkdir "$scratch/archive"

    say "drill: what is to be lost"
    local source=''
    if [ -n "$DATABASE_URL" ]; then
        source=$scratch/source.dump
        pg pg_dump --format=custom --no-owner >"$source"
    fi
    as initdb -D "$scratch/data" -U orchestrator --auth=trust --data-checksums >/dev/null
    serve data
    # From here on, `pg` means the drill's own server.
    unset PGPASSWORD DATABASE_URL_FILE
    plain=yes DATABASE_URL="postgresql:///orchestrator?host=$scratch&port=$port&user=orchestrator"
    export DATABASE_URL
    PG_DATABASE=postgres pg psql -XqAt -c 'create database orchestrator'
    if [ -n "$source" ]; then
        pg pg_restore --exit-on-error --no-owner <"$source"
    else
        local migration
        for migration in migrations/*.sql; do pg psql -XqAt -v ON_ERROR_STOP=1 -f "$migration" >/dev/null; done
        pg psql -XqAt -v ON_ERROR_STOP=1 -v runs="${DRILL_RUNS:-10000}" >/dev/null <<'SQL'
create table if not exists _sqlx_migrations (version bigint primary key, success boolean not null);
insert into run (id, agent_id, status, priority, attempt, trigger, scheduled_at, started_at, finished_at, params, output)
select (substr(replace(uuid_at(at)::text, '-', ''), 1, 12) || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
    gen_random_uuid(), 'succeeded', 5, 1, 'run_now', at, at, at, jsonb_build_object('n', n),
    jsonb_build_object('text', repeat(md5(n::text), 8))
from (select n, now() - n * interval '1 second' as at from generate_series(1, :runs) n) made;
SQL
    fi
    export BACKUP_DIR=$scratch/backups
    backups=$BACKUP_DIR
    result "database" "$(pg psql -XqAt -c 'select pg_size_pretty(pg_database_size(current_database()))'), $(prints | awk '{ rows += $3 } END { print rows }') rows"

    say "drill: logical"
    begun=$(now_ms)
    ops/scripts/backup.sh postgres 2>"$scratch/said" || { cat "$scratch/said" >&2; exit 1; }
    result "logical backup, restored once to prove it" "$(since "$begun")"
    before=$(prints)
    PG_DATABASE=postgres pg psql -XqAt -c 'drop database orchestrator with (force)'
    begun=$(now_ms)
    ops/scripts/restore.sh postgres --yes 2>"$scratch/said" || { cat "$scratch/said" >&2; exit 1; }
    result "restore after drop database" "$(since "$begun")"
    [ "$(prints)" = "$before" ] || die "what came back is something else"
    result "compared" "every table the same"

    say "drill: a moment"
    begun=$(now_ms)
    ops/scripts/backup.sh base 2>"$scratch/said" || { cat "$scratch/said" >&2; exit 1; }
    result "base backup, started once to prove it" "$(since "$begun")"
    pg psql -XqAt -c 'create table drill (n integer primary key, at timestamptz not null default clock_timestamp())'
    pg psql -XqAt -c 'insert into drill select generate_series(1, 1000)'
    before=$(prints)
    moment=$(pg psql -XqAt -c "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    pg psql -XqAt -c 'delete from drill' -c 'drop table run_step cascade' -c 'select pg_switch_wal()' >/dev/null
    # shellcheck disable=SC2016 # SQL
    until [ "$(pg psql -XqAt -c 'select count(*) from pg_ls_archive_statusdir() where name like $$%.ready$$')" = 0 ]; do sleep 0.2; done
    stop data
    rm -rf "$scratch/data"
    begun=$(now_ms)
    recover() { # recover FOLDER [MOMENT]
        local base
        base=$(chosen base)
        as sh "$scratch/scripts/unpack-base.sh" "$scratch/$1" "$scratch/archive" "${2:-}" <"$base"
        serve "$1"
        until [ "$(pg psql -XqAt -c 'select pg_is_in_recovery()')" = f ]; do sleep 0.1; done
    }
    recover again "$moment"
    result "back to the moment before the accident" "$(since "$begun")"
    [ "$(prints)" = "$before" ] || die "what came back is something else"
    result "compared" "every table as it was at $moment"

    say "drill: the disk, without warning (${DRILL_WRITE_SECONDS:-25} s of writing, a row every 0.1 s)"
    ops/scripts/backup.sh base 2>"$scratch/said" || { cat "$scratch/said" >&2; exit 1; }
    pg psql -XqAt -v ON_ERROR_STOP=1 -c "do \$\$ begin for n in 1..$((${DRILL_WRITE_SECONDS:-25} * 10)) loop insert into drill (n) values (1000000 + n); commit; perform pg_sleep(0.1); end loop; end \$\$"
    lost=$(pg psql -XqAt -c 'select count(*), min(at), max(at) from drill where n > 1000000')
    IFS='|' read -r rows first last <<<"$lost"
    stop again
    rm -rf "$scratch/again"
    begun=$(now_ms)
    recover third
    result "restore after the loss of the disk" "$(since "$begun")"
    shown=$(pg psql -XqAt -c "select ($rows - count(*)) || ' of $rows rows: the last ' || round(extract(epoch from '$last'::timestamptz - coalesce(max(at), '$first'))::numeric, 1) || ' s' from drill where n > 1000000")
    result "lost with the disk (archive_timeout ${DRILL_ARCHIVE_SECONDS:-10} s)" "$shown"
}

whole() {
    local begun before after key
    [ -n "$yes" ] || die "this removes the volumes of the system that runs here ($mode): say --compose --yes"
    [ -z "$plain" ] || die "unset DATABASE_URL"
    [ -n "$(running postgres)" ] || die "no postgres runs: start the system first"
    say "drill: backup"
    begun=$(now_ms)
    compose stop api scheduler worker >/dev/null 2>&1 # so that before and after can be compared
    before=$(prints)
    ops/scripts/backup.sh postgres
    result "logical backup, restored once to prove it" "$(since "$begun")"
    ops/scripts/backup.sh redis
    say "drill: destroying everything"
    compose down --volumes >/dev/null 2>&1
    begun=$(now_ms)
    say "drill: an empty system"
    compose up --detach --wait --no-build >/dev/null 2>&1
    result "an empty system runs" "$(since "$begun")"
    ops/scripts/restore.sh full --yes
    result "everything is back" "$(since "$begun")"
    # These are about the present, and the services run again.
    after=$(prints)
    diff <(grep -v ' \(process\|tool\|pace\) ' <<<"$before") <(grep -v ' \(process\|tool\|pace\) ' <<<"$after") >&2 || say "drill: the differences above are what the running services have done since, or a loss: judge"
    result "compared" "$(wc -l <<<"$after" | tr -d ' ') tables"
    key=$(admin_key)
    [ -z "$key" ] || ops/scripts/smoke.sh
}

if [ "$kind" = own ]; then own; else whole; fi
echo "the drill succeeded"
