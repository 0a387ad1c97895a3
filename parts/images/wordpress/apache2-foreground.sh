#!/bin/bash
set -eo pipefail
# Debian's envvars sets the variables that its apache2.conf needs. APACHE_ENVVARS can name another file, as for
# apachectl.
# shellcheck source=/dev/null
source "${APACHE_ENVVARS:-/etc/apache2/envvars}"
mkdir -p "$APACHE_RUN_DIR" "$APACHE_LOCK_DIR"
rm -f "$APACHE_PID_FILE"
exec apache2 -DFOREGROUND "$@"
