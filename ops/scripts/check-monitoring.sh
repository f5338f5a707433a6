#!/bin/sh
# Checks ops/monitoring: configurations, rules and their tests, routes, dashboards, runbooks, and that
# every series that is asked for exists. A tool that is not here is told, and its check skipped (CHECK_ALL=1
# makes that a failure); what is found makes this fail. (Prometheus, promtool, amtool: Debian packages prometheus, prometheus-alertmanager.)
set -eu
cd "$(dirname "$0")/../.."
monitoring=ops/monitoring
failed=
own_list=
# check-files.sh gives its own list, and says at its end what is in it.
if [ -z "${LEFT_OUT:-}" ]; then
    own_list=yes LEFT_OUT=$(mktemp)
    trap 'rm -f "$LEFT_OUT"' EXIT
fi

# has PROGRAM WHAT
has() {
    if command -v "$1" >/dev/null 2>&1; then return 0; fi
    echo "skipped: no $1 ($2)"
    echo "$2 (no $1)" >>"$LEFT_OUT"
    return 1
}

# check WHAT COMMAND…: quiet when all is well, else what the command said.
check() {
    what=$1
    shift
    if said=$("$@" 2>&1); then
        echo "ok: $what"
    else
        echo "$said" >&2
        echo "failed: $what" >&2
        failed=yes
    fi
}

# The receiver that each line of the file says.
routes() {
    while read -r receiver labels; do
        case $receiver in '' | '#'*) continue ;; esac
        # shellcheck disable=SC2086 # labels are words
        amtool config routes test --config.file "$monitoring/alertmanager/alertmanager.yml" \
            --verify.receivers "$receiver" $labels || return 1
    done <"$monitoring/alertmanager/tests/routes.txt"
}

if has promtool "Prometheus' configuration, rules and their tests"; then
    check "Prometheus' configuration and rules" promtool check config "$monitoring/prometheus/prometheus.yml"
    for test in "$monitoring"/prometheus/tests/*.yml; do
        check "$test" promtool test rules "$test"
    done
fi

if has amtool "Alertmanager's configuration and routes"; then
    check "Alertmanager's configuration" amtool check-config "$monitoring/alertmanager/alertmanager.yml"
    check "Alertmanager's routes" routes
fi

if has python3 "dashboards, series, runbooks"; then
    check dashboards python3 "$monitoring/grafana/dashboards.py" --check
    check "series, labels, tests and runbooks" python3 ops/scripts/check-monitoring.py
fi

[ -z "$own_list" ] || ops/scripts/left-out.sh checks "$LEFT_OUT" || failed=yes
[ -z "$failed" ]
