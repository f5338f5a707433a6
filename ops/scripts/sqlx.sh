#!/bin/sh
# .sqlx/ holds what the database says of every query in crates/engine, so that a build needs none.
#   sqlx.sh write   asks a fresh database, and writes the folder anew
#   sqlx.sh check   asks a fresh database, and fails when the folder says something else
#
# The queries are asked while the crate is compiled (sqlx's macros write to SQLX_OFFLINE_DIR). The
# migrations are applied with psql and not with our own binary: with an outdated folder it could not
# be built. An older build of it is good enough to start the servers.
set -eu
cd "$(dirname "$0")/../.."
verb=${1:-check}
target=${CARGO_TARGET_DIR:-target}
orchestrator=$target/debug/orchestrator

if [ "$verb" = inside ]; then
    for migration in migrations/*.sql; do
        psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file "$migration" "$DATABASE_URL" >/dev/null
    done
    touch crates/engine/src/lib.rs # what is fresh is not compiled, and so asks nothing
    SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$2 cargo check --quiet -p orchestrator-engine --all-targets
    exit
fi

case $verb in write | check) ;; *)
    echo "sqlx: say write or check" >&2
    exit 2
    ;;
esac

if ! [ -x "$orchestrator" ] && ! cargo build --quiet -p orchestrator-cli --bin orchestrator; then
    echo "sqlx: there is no earlier build of orchestrator to start a database with, and this one" \
        "does not build. With an empty database at hand, say:" \
        "DATABASE_URL=postgres://… ops/scripts/sqlx.sh inside \$PWD/.sqlx" >&2
    exit 1
fi

mkdir -p .sqlx # git keeps no empty folder
asked=$(mktemp -d)
trap 'rm -rf "$asked"' EXIT
"$orchestrator" servers --throwaway -- "$0" inside "$asked"

if [ "$verb" = write ]; then
    rm -rf .sqlx
    mkdir .sqlx
    cp "$asked"/query-*.json .sqlx/
    echo "sqlx: .sqlx holds $(find .sqlx -name 'query-*.json' | wc -l | tr -d ' ') queries"
elif ! diff -r "$asked" .sqlx; then
    echo "sqlx: .sqlx is out of date; say: make sqlx" >&2
    exit 1
fi
