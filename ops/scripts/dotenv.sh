# shellcheck shell=sh
# What Compose reads from .env and scripts here go by as well. To be sourced, in the root of the repository.
# What the environment has wins, as with Compose. Not DATABASE_URL and the like: those are for programs.
# Not ORCHESTRATOR_VERSION: deploy.sh says which version runs.

# dotenv NAME: its value in .env; the last one counts, quotes and a comment behind it do not.
dotenv() {
    sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" .env | tail -n 1 |
        sed -E "s/^'([^']*)'.*/\\1/; t; s/^\"([^\"]*)\".*/\\1/; t; s/[[:space:]]+#.*//; s/[[:space:]]+\$//"
}
if [ -f .env ]; then
    for dotenv_name in SERVER_NAME SECRETS_DIR PUBLISH_ADDRESS HTTPS_PORT API_PUBLISH_ADDRESS API_PORT MCP_CONFIG; do
        eval "[ -z \"\${$dotenv_name+set}\" ]" || continue
        dotenv_value=$(dotenv "$dotenv_name")
        [ -z "$dotenv_value" ] || export "$dotenv_name=$dotenv_value"
    done
fi
