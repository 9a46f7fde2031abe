#!/bin/sh
# A hook of the skills example: as the agent, before the runtime.
umask 077
printf 'machine git.example login agent password %s\n' "$GIT_TOKEN" > "$HOME/.netrc"
