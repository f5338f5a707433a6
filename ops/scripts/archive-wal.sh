#!/bin/sh
# PostgreSQL's archive_command: keeps a segment of WAL, compressed, whole or not at all.
#   archive-wal.sh PATH NAME [FOLDER]
# A segment that is there with the same content is fine (the server asks again after a crash); with
# another content it is somebody else's, and is refused. Zero means: it is on disk.
set -eu
path=$1 name=$2 folder=${3:-/wal-archive}

if [ -e "$folder/$name.gz" ]; then
    if gzip -dc "$folder/$name.gz" | cmp -s - "$path"; then exit 0; fi
    echo "archive-wal: $folder/$name.gz is there with another content: whose is it?" >&2
    exit 1
fi
gzip -1 <"$path" >"$folder/.$name.new"
sync "$folder/.$name.new"
mv "$folder/.$name.new" "$folder/$name.gz"
sync "$folder"
