#!/bin/sh
# The first process of the container: what lies in /docker-entrypoint.d runs before nginx does.
set -e
case $1 in
  nginx*) for script in /docker-entrypoint.d/*.sh; do [ ! -x "$script" ] || "$script"; done ;;
esac
exec "$@"
