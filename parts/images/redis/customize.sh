#!/bin/bash
# customize.sh ROOT: gives Debian's Redis the user, the folder and the entrypoint of the upstream image.
set -euo pipefail
root=$1
sed -i '/^redis:/d' "$root/etc/passwd" "$root/etc/group"
echo 'redis:x:999:' >> "$root/etc/group"
echo 'redis:x:999:999::/data:/usr/sbin/nologin' >> "$root/etc/passwd"
install -d -o 999 -g 999 "$root/data"
cat > "$root/usr/local/bin/docker-entrypoint.sh" << 'SH'
#!/bin/sh
# If the first argument is a flag or a configuration file, the arguments belong to redis-server. As root, hand the
# folder over to the user redis and run the server as that user.
set -e
case $1 in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ]; then
  # Like the upstream image, the server has no password and accepts every client; only the network protects it.
  [ $# -gt 1 ] || set -- "$@" --protected-mode no
  if [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown redis {} +
    exec setpriv --reuid=redis --regid=redis --clear-groups "$@"
  fi
fi
exec "$@"
SH
chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
chroot "$root" redis-server --version
