#!/bin/bash
# customize.sh ROOT: the upstream image's user, folder and first process.
set -euo pipefail
root=$1
sed -i '/^redis:/d' "$root/etc/passwd" "$root/etc/group"
echo 'redis:x:999:' >> "$root/etc/group"
echo 'redis:x:999:999::/data:/usr/sbin/nologin' >> "$root/etc/passwd"
install -d -o 999 -g 999 "$root/data"
cat > "$root/usr/local/bin/docker-entrypoint.sh" << 'SH'
#!/bin/sh
# With only flags or a file, they are the server's. As root, the folder is given to redis, and so is the process.
set -e
case $1 in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ]; then
  # There is no password: like upstream's, it listens to everybody, and the network is its guard.
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
