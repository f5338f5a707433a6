#!/bin/sh
# Makes a data folder of a base backup that comes on standard input, ready to be recovered: started with
# it, PostgreSQL replays the WAL archive up to a moment and is then an ordinary server.
#   unpack-base.sh DATA-FOLDER WAL-ARCHIVE [MOMENT] <FILE.tar.gz
# MOMENT, as 2026-11-25T08:30:00Z, is the last one that is still wanted; without it, all there is.
# The folder has to be empty. Run it as the user who will run PostgreSQL.
set -eu
data=$1 archive=$2 moment=${3:-}
case $moment$archive in
*"'"* | *\\*)
    echo "unpack-base: no quotes, please" >&2
    exit 2
    ;;
esac
# The letters are not understood where the setting is read.
moment=$(printf '%s' "$moment" | sed 's/T/ /; s/Z$/+00/')
for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [ ! -x "$folder/pg_verifybackup" ] || PATH=$folder:$PATH
done
umask 077
mkdir -p "$data"
if [ -n "$(find "$data" -mindepth 1 -maxdepth 1 -print -quit)" ]; then
    echo "unpack-base: $data is not empty" >&2
    exit 1
fi
gzip -dc | tar -xf - -C "$data"
rm -f "$data/postmaster.pid"
pg_verifybackup --no-parse-wal --exit-on-error "$data" >/dev/null
# The folder that archive-wal.sh keeps for this cluster.
archive=$archive/$(LC_ALL=C pg_controldata "$data" | sed -n 's/^Database system identifier: *//p')
cat >>"$data/postgresql.auto.conf" <<END
restore_command = 'test -f "$archive/%f.gz" && gzip -dc "$archive/%f.gz" >"%p"'
recovery_target_time = '$moment'
recovery_target_timeline = 'latest'
recovery_target_action = 'promote'
END
touch "$data/recovery.signal"
chmod 700 "$data"
