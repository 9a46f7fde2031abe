#!/bin/sh
. /opt/molecule/audit.sh
HEADER="hermes boot"
VARIABLES="HERMES_API_KEY"
audit
if [ "$(id -u)" = 0 ]; then
    mkdir -p /configs/.hermes
    chown -R agent:agent /configs
    [ "$(stat -c %u /workspace)" != 0 ] || chown -R agent:agent /workspace
    ln -sfn /configs/.hermes /tmp/.hermes
    chown -h agent:agent /tmp/.hermes
    exec gosu agent "$0" "$@"
fi
HOME=/tmp exec molecule-runtime serve "$@"
