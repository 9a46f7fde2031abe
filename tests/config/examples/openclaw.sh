#!/bin/sh
. /opt/molecule/audit.sh
HEADER="openclaw boot"
VARIABLES="OPENCLAW_TOKEN"
more_lines() {
    # Owner and mode, never the token.
    echo "auth_token: $(LC_ALL=C TZ=UTC ls -ld /configs/.auth_token 2>/dev/null || echo MISSING)"
}
audit
if [ "$(id -u)" = 0 ]; then
    chown -R agent:agent /configs
    chown agent:agent /workspace
    first=$(find /workspace -mindepth 1 -maxdepth 1 -print -quit)
    if [ -n "$first" ] && [ "$(stat -c %u "$first")" = 0 ]; then
        chown -R agent:agent /workspace
    fi
    mkdir -p ~agent/.openclaw
    chown -R agent:agent ~agent/.openclaw
    chmod 700 ~agent/.openclaw
    [ -f ~agent/.npmrc ] || echo 'prefix=/home/agent/.npm-global' > ~agent/.npmrc
    chown agent:agent ~agent/.npmrc
    chmod 600 ~agent/.npmrc
    exec gosu agent "$0" "$@"
fi
exec molecule-runtime "$@"
