#!/bin/sh
# What tests/reference/entrypoint.sh does where there is no snapshot, no volume of sessions and no mirror
# credentials; with SKILLS also what the skills example adds.
. /opt/molecule/audit.sh
HEADER="entrypoint boot"
VARIABLES="CLAUDE_CODE_OAUTH_TOKEN ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL
    MINIMAX_API_KEY GLM_API_KEY KIMI_API_KEY DEEPSEEK_API_KEY"
audit
if [ "$(id -u)" = 0 ]; then
    chown -R agent:agent /configs
    chown agent:agent /workspace
    first=$(find /workspace -mindepth 1 -maxdepth 1 -print -quit)
    if [ -n "$first" ] && [ "$(stat -c %u "$first")" = 0 ]; then
        chown -R agent:agent /workspace
    fi
    mkdir -p /workspace/.molecule/chat-uploads
    chown -R agent:agent /workspace/.molecule
    mkdir -p ~agent/.claude/sessions ~agent/.claude/session-env
    [ -f ~agent/.claude/settings.json ] || cat > ~agent/.claude/settings.json <<'END'
{
"permissions": {"defaultMode": "bypassPermissions"},
"_note": "Mode is also set programmatically by claude_sdk_executor.py (permission_mode='bypassPermissions'); this file is informational and lets `cat ~/.claude/settings.json` succeed."
}
END
    chown -R agent:agent ~agent/.claude
    mkdir -p ~agent/.molecule-token-cache ~agent/Downloads
    chown agent:agent ~agent/.molecule-token-cache ~agent/Downloads
    chmod 700 ~agent/.molecule-token-cache
    if [ -n "${SKILLS:-}" ]; then
        ln -sfn /configs/skills ~agent/.claude/skills
        chown -h agent:agent ~agent/.claude/skills
    fi
    exec gosu agent "$0" "$@"
fi
if [ -n "${SKILLS:-}" ]; then
    /opt/molecule/netrc.sh
fi
exec molecule-runtime "$@"
