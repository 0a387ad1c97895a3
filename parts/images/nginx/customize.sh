#!/bin/bash
# customize.sh ROOT: gives Debian's nginx the folders and the user of the upstream image, and logs to the container's
# output.
set -euo pipefail
root=$1 files=$(dirname "$0")
echo 'nginx:x:101:' >> "$root/etc/group"
echo 'nginx:x:101:101::/nonexistent:/usr/sbin/nologin' >> "$root/etc/passwd"
rm -rf "$root"/etc/nginx/{sites-*,modules-enabled,conf.d,snippets} "$root/var/www"
install -D -m 644 "$files/nginx.conf" "$root/etc/nginx/nginx.conf"
install -D -m 644 "$files/default.conf" "$root/etc/nginx/conf.d/default.conf"
install -D -m 755 "$files/entrypoint.sh" "$root/docker-entrypoint.sh"
install -d -m 755 "$root/docker-entrypoint.d" "$root/usr/share/nginx/html" "$root/var/cache/nginx"
cat > "$root/usr/share/nginx/html/index.html" << 'HTML'
<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body><h1>Welcome to nginx!</h1></body>
</html>
HTML
chroot "$root" nginx -t
rm -f "$root/run/nginx.pid"
ln -sf /dev/stdout "$root/var/log/nginx/access.log"
ln -sf /dev/stderr "$root/var/log/nginx/error.log"
