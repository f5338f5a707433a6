#!/bin/sh
# Checks what cargo does not: scripts, Dockerfile, compose files, nginx, Kubernetes, monitoring. A checker
# that is not installed is told and skipped, and named once more at the end (CHECK_ALL=1 makes that a failure);
# one that finds something makes this fail. Those that PyPI has are installed into .orchestrator/checks, where
# it can be reached (CHECKS_VENV=no leaves that out).
set -eu
cd "$(dirname "$0")/../.."
failed=
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export LEFT_OUT="$scratch/left-out"
: >"$LEFT_OUT"

# skipped PROGRAM NAME
skipped() {
    echo "skipped: no $1 ($2)"
    echo "$2 (no $1)" >>"$LEFT_OUT"
}

if [ "${CHECKS_VENV:-}" != no ]; then
    ops/scripts/checks-venv.sh >"$scratch/said" 2>&1 || echo "PyPI is out of reach: only the checkers that are here"
fi
PATH=$PATH:$PWD/.orchestrator/checks/bin

# check NAME PROGRAM COMMAND…: runs the command if PROGRAM is here.
check() {
    name=$1 program=$2
    shift 2
    if ! command -v "$program" >/dev/null 2>&1; then
        skipped "$program" "$name"
    elif "$@"; then
        echo "ok: $name"
    else
        echo "failed: $name" >&2
        failed=yes
    fi
}

scripts=$(find ops/scripts ops/deb .ci -type f \( -name '*.sh' -o -name run -o -path 'ops/deb/*' \))
# shellcheck disable=SC2086 # a list of files
check scripts shellcheck shellcheck --external-sources $scripts

# As they are, but for the programs, which need not be installed here.
units() {
    for unit in ops/systemd/*.service; do
        sed 's#^ExecStart=.*#ExecStart=/bin/true#' "$unit" >"$scratch/$(basename "$unit")" || return 1
    done
    # Given as an instance, a template is read as one.
    mv "$scratch/orchestrator-worker@.service" "$scratch/orchestrator-worker@9102.service"
    systemd-analyze verify --man=no "$scratch"/*.service >"$scratch/said" 2>&1 && [ ! -s "$scratch/said" ] && return
    cat "$scratch/said"
    return 1
}
check ops/systemd systemd-analyze units

if [ -f ops/Dockerfile ]; then
    check ops/Dockerfile hadolint hadolint ops/Dockerfile
fi

# Compose says what it would do without the files of secrets and without a daemon.
for compose in docker-compose.yml docker-compose.*.yml; do
    if ! [ -f "$compose" ] || [ "$compose" = docker-compose.override.yml ]; then continue; fi
    if ! docker compose version >/dev/null 2>&1; then # Docker may be here without it
        skipped "docker compose" "$compose"
    elif [ "$compose" = docker-compose.yml ]; then
        check "$compose" docker docker compose --profile '*' -f "$compose" config --quiet
    else
        check "$compose" docker docker compose --profile '*' -f docker-compose.yml -f "$compose" config --quiet
    fi
done
# A tag that moves is another program tomorrow.
if grep -nE '^ *image: *("?)[a-z0-9./-]+(:latest)?("?) *$' docker-compose*.yml ops/k8s -r | grep -v 'image: orchestrator'; then
    echo "failed: images without a version" >&2
    failed=yes
else
    echo "ok: images have versions"
fi

# nginx as it will run, but for the certificate, and for the DNS of containers.
nginx_test() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=test \
        -keyout "$scratch/tls_key" -out "$scratch/tls_certificate" 2>/dev/null || return 1
    sed -e "s#/tmp/#$scratch/#; s#/run/secrets/#$scratch/#; s#/dev/std\(out\|err\)#$scratch/log#" \
        ops/nginx/nginx.conf >"$scratch/nginx.conf"
    nginx -t -q -c "$scratch/nginx.conf" -g "error_log $scratch/log warn;" || return 1
}
PATH=$PATH:/usr/sbin
check ops/nginx/nginx.conf nginx nginx_test

# Kubernetes: built by kustomize, which kubectl has in it; then against the schemas.
built() {
    if command -v kustomize >/dev/null 2>&1; then kustomize build "$1"; else kubectl kustomize "$1"; fi
}
kustomize_here=kustomize
command -v kustomize >/dev/null 2>&1 || kustomize_here=kubectl
python=$PWD/.orchestrator/checks/bin/python3
for overlay in ops/k8s/overlays/*/; do
    [ -d "$overlay" ] || continue
    check "$overlay builds" "$kustomize_here" built "$overlay" >"$scratch/built"
    case $(tail -n 1 "$scratch/built") in
    ok:*)
        sed '$d' "$scratch/built" >"$scratch/objects"
        echo "ok: $overlay builds"
        if [ -x "$python" ] && "$python" -c 'import kubernetes_validate' 2>/dev/null; then
            # The one Secret that prod gets from elsewhere.
            check "$overlay against the schemas" "$python" "$python" ops/scripts/check_k8s.py \
                orchestrator:database_url,redis_url,admin_api_key <"$scratch/objects"
        else
            skipped kubernetes-validate "$overlay against the schemas"
        fi
        ;;
    *) cat "$scratch/built" ;;
    esac
done
# Every file that is listed exists, and every file is listed: needs nothing but a shell.
for list in ops/k8s/base ops/k8s/overlays/*; do
    [ -f "$list/kustomization.yaml" ] || continue
    named=$(sed -n '/^resources:/,/^[a-z]/s/^ *- //p' "$list/kustomization.yaml")
    for resource in $named; do
        [ -e "$list/$resource" ] || { echo "failed: $list names $resource, which is not there" >&2; failed=yes; }
    done
    for file in "$list"/*.yaml; do
        case " $(echo "$named" | tr '\n' ' ') kustomization.yaml " in
        *" $(basename "$file") "*) ;;
        *) echo "failed: $file is in no kustomization" >&2; failed=yes ;;
        esac
    done
done
[ ! -d ops/k8s ] || echo "ok: kustomizations name what is there"

ops/scripts/check-monitoring.sh || failed=yes
ops/scripts/left-out.sh checks "$LEFT_OUT" || failed=yes

[ -z "$failed" ]
