#!/bin/sh
# PostgreSQL's archive_command: keeps a segment of WAL, compressed, whole or not at all.
#   archive-wal.sh PATH NAME [FOLDER]         in the server's data folder
# Each cluster has a folder of its own in FOLDER, by its system identifier: names of segments begin anew
# with every initdb. A segment that is there with the same content is fine (the server asks again after a
# crash); with another content something is wrong, and it is refused. Zero means: it is on disk.
set -eu
path=$1 name=$2 folder=${3:-/wal-archive}
for programs in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [ ! -x "$programs/pg_controldata" ] || PATH=$PATH:$programs
done
cluster=$(LC_ALL=C pg_controldata . | sed -n 's/^Database system identifier: *//p')
[ -n "$cluster" ] || exit 1
folder=$folder/$cluster

mkdir -p "$folder"
if [ -e "$folder/$name.gz" ]; then
    if gzip -dc "$folder/$name.gz" | cmp -s - "$path"; then exit 0; fi
    echo "archive-wal: $folder/$name.gz is there with another content" >&2
    exit 1
fi
gzip -1 <"$path" >"$folder/.$name.new"
sync "$folder/.$name.new"
mv "$folder/.$name.new" "$folder/$name.gz"
sync "$folder"
