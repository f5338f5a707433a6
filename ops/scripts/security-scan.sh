#!/usr/bin/env bash
# Looks for what is known to be unsafe: advisories of our dependencies, secrets that were committed,
# containers that may more than they should, images (where trivy is). What cannot be looked at is said.
set -euo pipefail
# shellcheck source=ops/scripts/lib.sh
. "$(dirname "$0")/lib.sh"
failed=0
ill() { echo "FAIL     $1"; failed=1; }

if command -v cargo-deny >/dev/null 2>&1; then
    if cargo deny check advisories; then echo "ok       advisories"; else ill "advisories: see above"; fi
else
    echo "skipped  advisories: cargo install cargo-deny"
fi

# Private keys, and tokens that are known by their form. Tests may hold made-up ones: they say so.
found=$(git grep -nIE -e '-----BEGIN ([A-Z]+ )?PRIVATE KEY-----' -e 'AKIA[0-9A-Z]{16}' -e 'gh[pousr]_[A-Za-z0-9]{36}' \
    -e 'sk-[A-Za-z0-9]{40,}' -e 'xox[baprs]-[A-Za-z0-9-]{20,}' -e 'AGE-SECRET-KEY-1[0-9A-Z]{50,}' -- . ':!ops/scripts/security-scan.sh' || true)
if [ -z "$found" ]; then echo "ok       no secrets in the repository"; else ill "secrets in the repository:"; echo "$found"; fi
tracked=$(git ls-files '.env' '.secrets' '*.key' '*.pem')
if [ -z "$tracked" ]; then echo "ok       no files of secrets in the repository"; else ill "tracked: $tracked"; fi

if command -v docker >/dev/null 2>&1; then
    # Compose as it would run: who may gain privileges, write its files, or keeps capabilities.
    soft=$(docker compose -f docker-compose.yml -f docker-compose.prod.yml config --format json | python3 -c '
import json, sys
for name, s in json.load(sys.stdin)["services"].items():
    if "no-new-privileges:true" not in s.get("security_opt", []): print(name, "may gain privileges")
    if not s.get("read_only"): print(name, "may write its own files")
    if s.get("cap_drop") != ["ALL"]: print(name, "keeps capabilities")
    if s.get("privileged"): print(name, "is privileged")
    if "limits" not in s.get("deploy", {}).get("resources", {}) and name != "first-start": print(name, "has no limits")')
    if [ -z "$soft" ]; then echo "ok       containers of prod are closed"; else ill "containers: $soft"; fi
    if command -v trivy >/dev/null 2>&1; then
        for image in $(docker compose -f docker-compose.yml -f docker-compose.prod.yml --profile '*' config --images | sort -u); do
            if trivy image --quiet --exit-code 1 --ignore-unfixed --severity HIGH,CRITICAL "$image"; then
                echo "ok       $image"
            else
                ill "$image: see above"
            fi
        done
    else
        echo "skipped  images: no trivy here"
    fi
else
    echo "skipped  containers and images: no docker here"
fi
exit "$failed"
