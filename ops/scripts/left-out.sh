#!/bin/sh
# Says in one line what was not checked here for want of a program; CHECK_ALL=1 makes that a failure.
#   left-out.sh checks FILE   what check-files.sh and check-monitoring.sh wrote to FILE, a line each
#   left-out.sh tests         what `make test` passes without trying it
set -eu

# Asks as the tests do: crates/cli/tests/it/pooler.rs, crates/chaos/src/faults/.
tests() {
    version=$(PATH=$PATH:/usr/sbin:/opt/homebrew/bin:/usr/local/bin && pgbouncer --version 2>/dev/null |
        sed -n 's/^PgBouncer \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086 # two numbers
    set -- ${version:-0 0}
    if [ "$1" -lt 1 ] || { [ "$1" -eq 1 ] && [ "$2" -lt 21 ]; }; then
        echo "behind a pooler (no PgBouncer 1.21)"
    fi
    disk=$(mktemp -d)
    if mount -t tmpfs -o size=1m orchestrator-check "$disk" 2>/dev/null; then
        umount "$disk"
    else
        echo "the fault disk-full (only root can mount a disk)"
    fi
    rmdir "$disk"
    set -- /usr/lib/faketime/libfaketimeMT.so.1 /usr/lib/*/faketime/libfaketimeMT.so.1
    [ -f "$1" ] || [ -f "$2" ] || echo "the fault clock-off (no faketime)"
}

case ${1:-} in
checks) left_out=$(sort -u "$2") what="not checked" ;;
tests) left_out=$(tests) what="not tested" ;;
*)
    sed -n '2,4s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
if [ -z "$left_out" ]; then exit 0; fi
list=$(printf '%s\n' "$left_out" | paste -s -d '|' - | sed 's/|/; /g')
if [ "${CHECK_ALL:-}" = 1 ]; then
    echo "failed: $what, and CHECK_ALL=1: $list" >&2
    exit 1
fi
echo "$what, for want of a program or a right (CHECK_ALL=1 refuses that): $list"
