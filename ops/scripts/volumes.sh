#!/usr/bin/env bash
# All volumes of the containers' system, as they are: the way to another machine. For everyday backups see
# backup.sh, which needs no stop and proves what it wrote.
#   volumes.sh backup [--yes]            into BACKUP_DIR/volumes/TIME, an archive a volume; the containers
#                                        are stopped meanwhile, and started again
#   volumes.sh restore FOLDER [--yes]    what is in the volumes now is removed
# They hold passwords: the folder is for its owner alone, and belongs on a disk that is encrypted.
set -euo pipefail
# shellcheck source=ops/scripts/backup-lib.sh
. "$(dirname "$0")/backup-lib.sh"
[ -z "$plain" ] || die "DATABASE_URL names plain servers: they have no volumes"
verb=${1:-} folder='' yes=''
[ $# -eq 0 ] || shift
for word; do
    case $word in
    --yes) yes=yes ;;
    *) folder=$word ;;
    esac
done

# What is compiled, and metrics, are no data of anybody's.
volumes() { compose config --volumes | grep -vxE 'target|cargo|prometheus|postgres-socket'; }
full_name() { printf '%s_%s' "$(compose config --format json | sed -nE 's/^ *"name": "([a-z0-9_-]+)",?$/\1/p' | sed -n 1p)" "$1"; }
image=$(compose config --images | sed -n '/^postgres:/{p;q;}')
tar_in() { # tar_in VOLUME ro|rw ARGUMENT…
    local volume=$1 how=$2
    shift 2
    docker run --rm --interactive --network none --user root --entrypoint sh --volume "$volume:/volume:$how" "$image" -c "$@"
}
again=''
trap 'code=$?; trap - EXIT; [ -z "$again" ] || compose start >/dev/null 2>&1; exit $code' EXIT

case $verb in
backup)
    sure "The containers are stopped for a while"
    folder=$backups/volumes/$stamp
    mkdir -p "$folder"
    [ -z "$(compose ps --quiet)" ] || again=yes
    compose stop >/dev/null 2>&1
    for volume in $(volumes); do
        docker volume inspect "$(full_name "$volume")" >/dev/null 2>&1 || continue
        tar_in "$(full_name "$volume")" ro 'tar -cf - -C /volume .' | gzip -1 >"$folder/$volume.tar.gz"
        say "volumes: $folder/$volume.tar.gz, $(size "$folder/$volume.tar.gz") bytes"
    done
    (cd "$folder" && sha256sum ./*.tar.gz >SHA256SUMS)
    ;;
restore)
    [ -f "$folder/SHA256SUMS" ] || die "which folder? It has a SHA256SUMS"
    (cd "$folder" && sha256sum --check --quiet SHA256SUMS) || die "$folder is damaged"
    sure "What is in the volumes is replaced by $folder"
    [ -z "$(compose ps --quiet)" ] || again=yes
    compose stop >/dev/null 2>&1
    for file in "$folder"/*.tar.gz; do
        volume=$(full_name "$(basename "$file" .tar.gz)")
        docker volume create --label "com.docker.compose.project=${volume%%_*}" --label "com.docker.compose.volume=$(basename "$file" .tar.gz)" "$volume" >/dev/null
        gzip -dc "$file" | tar_in "$volume" rw 'find /volume -mindepth 1 -delete; tar -xf - -C /volume'
        say "volumes: $volume is what $file holds"
    done
    ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
