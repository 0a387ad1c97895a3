#!/bin/bash
set -eo pipefail
# Debian's file asks for variables that nobody has set; where it is, says the variable that its apachectl heeds too.
# shellcheck source=/dev/null
source "${APACHE_ENVVARS:-/etc/apache2/envvars}"
mkdir -p "$APACHE_RUN_DIR" "$APACHE_LOCK_DIR"
rm -f "$APACHE_PID_FILE"
exec apache2 -DFOREGROUND "$@"
