#!/bin/sh
# Makes the passwords of Postgres and Redis, once, in the volume that only this system's containers see.
# Runs before the others at every `docker compose up`; finds its work done from the second time on.
#
# POSTGRES_PASSWORD, if set, is taken at the first start in place of a random one. Afterwards the
# database has it, and this script goes by what it wrote down: a system that runs goes on running.
#
# Where secrets are mounted (docker-compose.prod.yml), they are the source, at every start: what lies in
# the volume is made of them.
set -eu

secrets=/run/secrets

directory=${1:?the folder of the passwords}
cd "$directory"

random() { # 256 bits, in hexadecimal: needs no quoting anywhere
  LC_ALL=C tr -dc '0-9a-f' </dev/urandom | head -c 64
}

put() { # put NAME CONTENT: whole or not at all
  printf '%s\n' "$2" >".$1.new"
  chmod 0444 ".$1.new" # each container reads it as a user of its own
  mv ".$1.new" "$1"
}

percent() { # any text as a part of a URL
  printf '%s' "$1" | od -An -v -tx1 | tr -d '\n' | sed 's/ \{1,\}/%/g'
}

for name in postgres_password redis_password monitoring_password; do
  [ ! -s "$secrets/$name" ] || put "$name" "$(cat "$secrets/$name")"
done
[ -s postgres_password ] || put postgres_password "${POSTGRES_PASSWORD:-$(random)}"
[ -s redis_password ] || put redis_password "$(random)"
postgres=$(cat postgres_password)
redis=$(cat redis_password)

if [ -n "${POSTGRES_PASSWORD:-}" ] && [ "$POSTGRES_PASSWORD" != "$postgres" ]; then
  echo "POSTGRES_PASSWORD is passed over: the database was made with another one. To change that, see" >&2
  echo "docs/running.md." >&2
fi

put database_url "postgres://orchestrator:$(percent "$postgres")@postgres:5432/orchestrator"
put redis_url "redis://:$redis@redis:6379/0"
put redis.conf "requirepass $redis"
put redis_exporter.json "{\"redis://redis:6379\": \"$redis\"}"
if [ -d /wal-archive ]; then
  chown postgres:postgres /wal-archive
  chmod 0700 /wal-archive
fi
echo "passwords are in place"
