#!/bin/sh
# Makes the Python environment that the tests of MCP take their servers from: published programs,
# not ours, so that we are tested against what others speak. Does nothing when it is there already.
#
#   ops/scripts/test-venv.sh          into .orchestrator/venv
#   TEST_VENV=/some/where ops/scripts/test-venv.sh
set -eu

wanted='mcp==2.3.0 mcp-server-time==2026.10.19'

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
venv=${TEST_VENV:-$root/.orchestrator/venv}
mark=$venv/.holds

if [ -f "$mark" ] && [ "$(cat "$mark")" = "$wanted" ]; then
    exit 0
fi
python3 -m venv "$venv"
# shellcheck disable=SC2086 # two words are two packages
"$venv/bin/pip" install --quiet --disable-pip-version-check $wanted
printf '%s' "$wanted" >"$mark"
echo "$venv holds $wanted"
