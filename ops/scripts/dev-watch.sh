#!/bin/sh
# What the containers of docker-compose.dev.yml run; needs nothing but a shell and find.
#   dev-watch.sh build        compiles, and again whenever a source changes
#   dev-watch.sh run PROGRAM  runs what was compiled last, and starts it anew when it changes
#
# Looks once a second at the times of the files: works with every kind of mount, which notifications
# of changes do not.
set -eu
target=${CARGO_TARGET_DIR:-/target}
mark=$target/debug/.built

changed() { # changed FILE: whether a source is newer than it
    [ -n "$(find Cargo.toml Cargo.lock crates migrations .sqlx -type f -newer "$1" -print -quit)" ]
}

build() {
    begun=$target/.begun
    while :; do
        touch "$begun" # before the build: what changes meanwhile is built next
        if cargo build --locked --bins; then
            touch -r "$begun" "$mark"
            echo "dev-watch: built" >&2
        else
            echo "dev-watch: it does not build; what was built before goes on" >&2
        fi
        until changed "$begun"; do sleep 1; done
    done
}

run() {
    binary=$target/debug/$1
    child=
    trap 'trap - TERM INT; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null; [ -z "$child" ] || wait "$child"; exit 0' TERM INT
    [ -e "$mark" ] || echo "dev-watch: waiting for the first build" >&2
    until [ -e "$mark" ] && [ -x "$binary" ]; do sleep 1; done
    while :; do
        # Our own copy: cargo replaces the file while the program runs. Not in /tmp, where nothing may be run.
        cp "$binary" "/var/tmp/$1"
        was=$(stat -c %Y "$mark")
        "/var/tmp/$1" &
        child=$!
        while kill -0 "$child" 2>/dev/null && [ "$(stat -c %Y "$mark" 2>/dev/null || echo "$was")" = "$was" ]; do
            sleep 1
        done
        if kill -0 "$child" 2>/dev/null; then
            echo "dev-watch: $1 has changed" >&2
            kill -TERM "$child"
            wait "$child" || true
        else
            wait "$child" || echo "dev-watch: $1 ended with code $?; again in 2 s, or at a change" >&2
            sleep 2
        fi
        child=
    done
}

case ${1:-} in
build) build ;;
run) run "${2:?which program}" ;;
*)
    echo "dev-watch: say build, or run PROGRAM" >&2
    exit 2
    ;;
esac
