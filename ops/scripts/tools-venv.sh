#!/bin/sh
# Makes the Python environment with the MCP servers that the examples and the tests use: published
# programs, not ours, so that we are tried against what others speak. Does nothing when it is there.
#
#   ops/scripts/tools-venv.sh          into .orchestrator/venv
#   TEST_VENV=/some/where ops/scripts/tools-venv.sh
#   ops/scripts/tools-venv.sh config   and names the servers in .orchestrator/mcp.json, for
#                                      `orchestrator dev`, unless that file is there: it is yours
set -eu

wanted='mcp==2.3.0 mcp-server-time==2026.10.19'

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
venv=${TEST_VENV:-$root/.orchestrator/venv}
mark=$venv/.holds
config=$root/.orchestrator/mcp.json

# Others may pass through, as the user of a private PostgreSQL must, but not look around.
[ -d "$root/.orchestrator" ] || mkdir -m 711 "$root/.orchestrator"

if ! [ -f "$mark" ] || [ "$(cat "$mark")" != "$wanted" ]; then
    # In two steps: venv alone would keep to itself why pip could not be put in.
    if ! { python3 -m venv --clear --without-pip "$venv" && "$venv/bin/python3" -m ensurepip --upgrade --default-pip >/dev/null; }; then
        echo "tools-venv: $(command -v python3) could not make $venv, see above; $(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1024) }') MiB of disk are free" >&2
        exit 1
    fi
    # shellcheck disable=SC2086 # two words are two packages
    "$venv/bin/pip" install --quiet --disable-pip-version-check $wanted
    printf '%s' "$wanted" >"$mark"
    echo "$venv holds $wanted"
fi

if [ "${1:-}" = config ] && ! [ -e "$config" ]; then
    cat >"$config" <<END
{
  "mcpServers": {
    "time": { "command": "$venv/bin/python", "args": ["-m", "mcp_server_time"] }
  }
}
END
    echo "$config names the MCP server time"
fi
