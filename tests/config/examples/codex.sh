#!/bin/sh
. /opt/molecule/audit.sh
HEADER="codex boot"
VARIABLES="OPENAI_API_KEY OPENAI_BASE_URL"
audit
if [ "$(id -u)" = 0 ]; then
    chown -R agent:agent /configs
    mkdir -p ~agent/.codex
    chown -R agent:agent ~agent/.codex
    [ ! -f ~agent/.codex/auth.json ] || chmod 600 ~agent/.codex/auth.json
    exec gosu agent "$0" "$@"
fi
exec molecule-runtime "$@"
