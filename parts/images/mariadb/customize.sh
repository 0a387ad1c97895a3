#!/bin/bash
# customize.sh ROOT: initialises a data directory when the image is built, so that a container's first start only has to
# copy it.
set -euo pipefail
root=$1 files=$(dirname "$0")
# Use the upstream image's user and group IDs, so that a volume works with either image.
echo 'mysql:x:999:' >> "$root/etc/group"
echo 'mysql:x:999:999::/nonexistent:/usr/sbin/nologin' >> "$root/etc/passwd"
install -m 644 "$files/lab.cnf" "$root/etc/mysql/conf.d/lab.cnf"
install -m 755 "$files/entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
install -d -o 999 -g 999 "$root/var/lib/mysql" "$root/usr/share/lab/mysql"
# Leave out the help tables: five megabytes that nobody reads here.
: > "$root/usr/share/mariadb/fill_help_tables.sql"
chroot "$root" mariadb-install-db --user=mysql --datadir=/usr/share/lab/mysql --skip-test-db \
  --auth-root-authentication-method=normal --cross-bootstrap
# Keep only root@localhost and the server's own account. Everybody could log in to the other accounts.
chroot "$root" mariadbd --bootstrap --user=mysql --datadir=/usr/share/lab/mysql << 'SQL'
DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');
SQL
rm -f "$root"/usr/share/lab/mysql/{ibtmp1,*.pid,ddl_recovery*.log,tc.log}
du -sm "$root/usr/share/lab/mysql"
