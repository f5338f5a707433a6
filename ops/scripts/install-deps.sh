#!/bin/sh
# Installs what a run and the tests need besides Rust: a C compiler (to link), PostgreSQL, Redis, and
# python3-venv (for MCP servers that the tests and an example use). With `tests` also PgBouncer, which
# one test puts in front of Postgres; without it that test says so and passes. Does nothing when all is there.
# Starts no service and makes no database: `orchestrator dev`
# and the tests run their own servers, on their own ports, from the same programs.
set -eu

say() { printf '%s\n' "install-deps: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

have_postgres() {
    for folder in $(printf '%s' "$PATH" | tr ':' ' ') /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then return 0; fi
    done
    return 1
}
have_redis() { have redis-server || have valkey-server; }
have_pgbouncer() { have pgbouncer || [ -x /usr/sbin/pgbouncer ]; }
have_venv() { have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }

have cargo || {
    say "Rust is missing; install it from https://rustup.rs (the version is in rust-toolchain.toml)"
    exit 1
}

missing=
have cc || missing="$missing compiler"
have_postgres || missing="$missing postgres"
have_redis || missing="$missing redis"
have_venv || missing="$missing venv"
# Nobody is asked for a password because of one test.
if [ "${1:-}" = tests ] && ! have_pgbouncer && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || have brew; }; then
    missing="$missing pgbouncer"
fi
[ -n "$missing" ] || exit 0

# The packages for what is missing, by the names $1 (postgres), $2 (redis), $3 (venv), $4 (compiler),
# $5 (pgbouncer).
packages() {
    for what in $missing; do
        case $what in
        postgres) printf '%s ' "$1" ;;
        redis) printf '%s ' "$2" ;;
        venv) printf '%s ' "$3" ;;
        compiler) printf '%s ' "$4" ;;
        pgbouncer) printf '%s ' "$5" ;;
        esac
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        say "needs root: sudo $*"
        sudo "$@"
    else
        say "needs root, and there is no sudo; as root, say: $*"
        exit 1
    fi
}

with_apt() {
    list=$(packages postgresql redis-server python3-venv build-essential pgbouncer)
    say "installing with apt: $list"
    # Debian starts what it installs, and makes a cluster on port 5432. Neither is wanted here, and
    # neither is changed where PostgreSQL's packages have been before.
    no_cluster=/etc/postgresql-common/createcluster.d/orchestrator.conf
    if ! dpkg -s postgresql-common >/dev/null 2>&1; then
        as_root mkdir -p "${no_cluster%/*}"
        echo 'create_main_cluster = false' | as_root tee "$no_cluster" >/dev/null
    fi
    policy=/usr/sbin/policy-rc.d
    made_policy=
    if ! [ -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
        made_policy=yes
    fi
    code=0
    # shellcheck disable=SC2086 # a list of names
    { as_root apt-get -q update && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y install --no-install-recommends $list; } >&2 || code=$?
    [ -z "$made_policy" ] || as_root rm -f $policy
    return $code
}

with_brew() {
    list=$(packages postgresql@17 redis python gcc pgbouncer)
    say "installing with brew: $list"
    # shellcheck disable=SC2086 # a list of names
    brew install $list >&2
}

if have apt-get; then
    with_apt
elif have brew; then
    with_brew
else
    say "missing:$missing. Neither apt nor brew is here: install PostgreSQL (with its server" \
        "programs), Redis and Python's venv with what this system has, then try again. Or set" \
        "DATABASE_URL and REDIS_URL to servers you have."
    exit 1
fi

if ! { have cc && have_postgres && have_redis && have_venv; }; then
    say "installed, and still not everything is found; see above"
    exit 1
fi
