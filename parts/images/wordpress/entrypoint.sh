#!/bin/bash
# The first process of the container. It copies WordPress into /var/www/html if there is none yet. Its settings come
# from WORDPRESS_DB_HOST, _USER, _PASSWORD, _NAME, _CHARSET, _COLLATE, WORDPRESS_TABLE_PREFIX and WORDPRESS_DEBUG, each
# of which may be given as …_FILE instead. Its keys come from WORDPRESS_AUTH_KEY and similar variables, or from the
# volume.
set -euo pipefail
case ${1-} in
  apache2*) ;;
  *) exec "$@" ;;
esac
if [[ ! -e index.php || ! -e wp-includes/version.php ]]; then
  echo "WordPress not found in $PWD - copying now..." >&2
  cp -a --no-preserve=mode /usr/src/wordpress/. . 2> /dev/null || cp -r /usr/src/wordpress/. .
  chown -R www-data:www-data . || true
  echo "Complete! WordPress has been successfully copied to $PWD" >&2
fi
# Keep the keys in the volume, because all containers of a site need the same ones to accept each other's sessions.
if [[ ! -e wp-salts.php ]]; then
  {
    echo '<?php'
    for name in AUTH_KEY SECURE_AUTH_KEY LOGGED_IN_KEY NONCE_KEY AUTH_SALT SECURE_AUTH_SALT LOGGED_IN_SALT NONCE_SALT; do
      echo "define('$name', getenv('WORDPRESS_$name') ?: '$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')');"
    done
  } > wp-salts.php.new
  chown www-data: wp-salts.php.new 2> /dev/null || true
  mv wp-salts.php.new wp-salts.php
fi
exec "$@"
