#!/bin/bash
# customize.sh ROOT: puts Debian's WordPress into one tree under /usr/src/wordpress, as in the upstream image. A
# container copies it from there into an empty /var/www/html.
set -euo pipefail
root=$1 files=$(dirname "$0")
# Debian's package links to files of other packages. Copy those files, because the links would be broken in a volume.
mkdir -p "$root/usr/src"
chroot "$root" cp -rL /usr/share/wordpress /usr/src/wordpress 2> /tmp/dangling ||
  { grep -v 'No such file' /tmp/dangling && exit 1; }
rm -rf "$root/usr/share/wordpress" "$root/var/lib/wordpress" "$root/usr/src/wordpress/wp-config.php"
find "$root/usr/src/wordpress" -name '*.md' -delete
mkdir -p "$root/usr/src/wordpress/wp-content/"{plugins,themes,uploads}
install -m 644 "$files/wp-config.php" "$root/usr/src/wordpress/wp-config.php"
chroot "$root" chown -R www-data:www-data /usr/src/wordpress
install -m 755 "$files/entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
install -m 755 "$files/apache2-foreground.sh" "$root/usr/local/bin/apache2-foreground"
install -m 644 "$files/apache.conf" "$root/etc/apache2/conf-available/lab.conf"
chroot "$root" a2enconf -q lab
chroot "$root" a2enmod -q rewrite expires
ln -sf /dev/stdout "$root/var/log/apache2/access.log"
ln -sf /dev/stderr "$root/var/log/apache2/error.log"
# Debian's WordPress depends on a database client: fifty megabytes of programs that this image never runs.
find "$root/usr/bin" \( -name 'mariadb*' -o -name perror -o -name replace -o -name resolve_stack_dump \
  -o -name my_print_defaults -o -name innochecksum -o -name resolveip \) -delete
rm -rf "$root/var/www/html"
install -d -m 1777 "$root/var/www/html"
chroot "$root" apache2ctl configtest
# Without one of these extensions, the first page would end in a fatal error.
for extension in mysqli curl gd mbstring xml; do
  chroot "$root" php -m | grep -x "$extension" > /dev/null || { echo "error: PHP has no $extension"; exit 1; }
done
grep wp_version "$root/usr/src/wordpress/wp-includes/version.php" | tail -n 1
