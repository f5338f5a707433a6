#!/bin/sh
# The monitoring, tried for real: private servers, every service (two schedulers, two workers), a load with
# failures and events, the exporters, Alertmanager, and Prometheus with our configuration, rules included;
# then every query of every dashboard is asked. Takes some minutes, leaves nothing behind.
#
#   make monitoring-try                   or  ops/scripts/try-monitoring.sh [SECONDS of load, 180]
#   BIN=target/release KEEP=yes …         other binaries; stay up until Ctrl-C (Prometheus on 19090)
#
# Needs prometheus, prometheus-alertmanager and prometheus-{postgres,redis,node}-exporter (Debian), python3.
set -eu
cd "$(dirname "$0")/../.."
here=$PWD
bin=$(cd "${BIN:-target/debug}" && pwd)
seconds=${1:-180}
monitoring=$here/ops/monitoring

if [ -z "${TRY_MONITORING_INSIDE:-}" ]; then
    for program in prometheus prometheus-alertmanager prometheus-postgres-exporter prometheus-redis-exporter \
        prometheus-node-exporter python3 "$bin/orchestrator" "$bin/orchestrator-api" "$bin/orchestrator-scheduler" "$bin/orchestrator-worker"; do
        command -v "$program" >/dev/null 2>&1 || { echo "there is no $program" >&2; exit 2; }
    done
    # Below, beside the servers, with DATABASE_URL and REDIS_URL.
    TRY_MONITORING_INSIDE=yes exec "$bin/orchestrator" servers --throwaway --redis-databases 16 -- "$0" "$seconds"
fi

work=$(mktemp -d)
pids=
# shellcheck disable=SC2086 # a list of pids
end() {
    trap - EXIT INT TERM
    kill $pids 2>/dev/null || true
    wait $pids 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
trap 'exit 1' INT TERM

# begin NAME COMMAND…: in the background, with a log.
begin() {
    name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    pids="$pids $!"
}

export API_HOST=127.0.0.1 METRICS_HOST=127.0.0.1 LOG_LEVEL=WARNING HTTP_ALLOW_PRIVATE=127.0.0.1
ADMIN_API_KEY=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
export ADMIN_API_KEY
API_PORT=18080 begin api "$bin/orchestrator-api"
METRICS_PORT=18101 begin scheduler1 "$bin/orchestrator-scheduler"
METRICS_PORT=18102 begin scheduler2 "$bin/orchestrator-scheduler"
METRICS_PORT=18201 begin worker1 "$bin/orchestrator-worker"
METRICS_PORT=18202 begin worker2 "$bin/orchestrator-worker"

# As the exporter does in production: a role that reads statistics alone.
echo monitoring >"$work/password"
psql "$DATABASE_URL" -Xq -v password_file="$work/password" -f "$here/ops/scripts/sql/monitoring-role.sql"
DATA_SOURCE_NAME="postgres://monitoring:monitoring@${DATABASE_URL#*@}?sslmode=disable" begin postgres-exporter prometheus-postgres-exporter \
    --extend.query-path="$monitoring/postgres-exporter/queries.yml" --web.listen-address=127.0.0.1:19187
address=${REDIS_URL#*@}
password=${REDIS_URL#*://*:}
begin redis-exporter prometheus-redis-exporter -redis.addr "redis://${address%/*}" -redis.password "${password%%@*}" \
    -check-single-streams orchestrator:work,orchestrator:schedule,orchestrator:events,orchestrator:lifecycle \
    -web.listen-address 127.0.0.1:19121
begin node-exporter prometheus-node-exporter --web.listen-address=127.0.0.1:19100
begin alertmanager prometheus-alertmanager --config.file="$monitoring/alertmanager/alertmanager.yml" \
    --storage.path="$work/alertmanager" --web.listen-address=127.0.0.1:19093 --cluster.listen-address=

# Our configuration with other addresses in place of names, and faster.
sed -e 's/names: \[api\].*/static: "127.0.0.1:18080"/' \
    -e 's/names: \[scheduler\].*/static: "127.0.0.1:18101", "127.0.0.1:18102"/' \
    -e 's/names: \[worker\].*/static: "127.0.0.1:18201", "127.0.0.1:18202"/' \
    -e 's/names: \[postgres-exporter\].*/static: "127.0.0.1:19187"/' \
    -e 's/names: \[redis-exporter\].*/static: "127.0.0.1:19121"/' \
    -e 's/names: \[node-exporter\].*/static: "127.0.0.1:19100"/' \
    -e 's/names: \[alertmanager\].*/static: "127.0.0.1:19093"/' \
    -e 's/dns_sd_configs: \[{ static: \(.*\)$/static_configs: [{ targets: [\1] }]/' \
    -e 's/localhost:9090/127.0.0.1:19090/' \
    -e 's/_interval: [0-9]*s$/_interval: 5s/' -e 's/scrape_timeout: .*/scrape_timeout: 5s/' \
    "$monitoring/prometheus/prometheus.yml" >"$work/prometheus.yml"
ln -s "$monitoring/prometheus/rules" "$work/rules"
begin prometheus prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/prometheus" \
    --web.listen-address=127.0.0.1:19090 --log.level=warn

echo "load for $seconds s; logs in $work"
if ! python3 ops/scripts/monitoring-load.py http://127.0.0.1:18080 "$seconds"; then
    tail -n 3 "$work"/*.log >&2
    exit 1
fi
failed=
python3 ops/scripts/check-dashboards.py http://127.0.0.1:19090 --seconds 30 || failed=yes
if [ -n "${KEEP:-}" ]; then
    echo "Prometheus: http://127.0.0.1:19090; Ctrl-C ends everything"
    python3 ops/scripts/monitoring-load.py http://127.0.0.1:18080 86400 || true
fi
[ -z "$failed" ]
