#!/bin/sh
# The first process of the container. It runs the scripts in /docker-entrypoint.d before it starts nginx.
set -e
case $1 in
  nginx*) for script in /docker-entrypoint.d/*.sh; do [ ! -x "$script" ] || "$script"; done ;;
esac
exec "$@"
