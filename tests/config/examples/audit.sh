# The audit block of the example scripts: $HEADER, $VARIABLES, and a function `more_lines`.
more_lines() { :; }
audit() {
    echo "----- $HEADER $(date -u +%Y-%m-%dT%H:%M:%SZ) -----"
    echo "uid=$(id -u) gid=$(id -g) user=$(id -un)"
    echo "hostname=$(hostname) workspace_id=${WORKSPACE_ID:-<unset>}"
    echo "platform_url=${PLATFORM_URL:-<unset>}"
    echo "configs_dir: $(LC_ALL=C TZ=UTC ls -ld /configs || echo MISSING)"
    echo "configs_contents: $(ls /configs | tr '\n' ' ')"
    echo "workspace_dir: $(LC_ALL=C TZ=UTC ls -ld /workspace || echo MISSING)"
    more_lines
    for variable in $VARIABLES; do
        eval "value=\${$variable:-}"
        if [ -n "$value" ]; then echo "env $variable=set"; else echo "env $variable=unset"; fi
    done
    echo "------------------------------------------------"
}
