#!/bin/bash
# customize.sh ROOT: initialises a data directory once, while the image is made, so that a container's
# first start has only to copy it.
set -euo pipefail
root=$1 files=$(dirname "$0")
# The upstream image's numbers: a volume can be carried from one to the other.
echo 'mysql:x:999:' >> "$root/etc/group"
echo 'mysql:x:999:999::/nonexistent:/usr/sbin/nologin' >> "$root/etc/passwd"
install -m 644 "$files/lab.cnf" "$root/etc/mysql/conf.d/lab.cnf"
install -m 755 "$files/entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
install -d -o 999 -g 999 "$root/var/lib/mysql" "$root/usr/share/lab/mysql"
# Help texts are five megabytes of tables that nobody reads here.
: > "$root/usr/share/mariadb/fill_help_tables.sql"
chroot "$root" mariadb-install-db --user=mysql --datadir=/usr/share/lab/mysql --skip-test-db \
  --auth-root-authentication-method=normal --cross-bootstrap
# Of the accounts it makes only root@localhost and the server's own stay: the others are open to anybody.
chroot "$root" mariadbd --bootstrap --user=mysql --datadir=/usr/share/lab/mysql << 'SQL'
DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');
SQL
rm -f "$root"/usr/share/lab/mysql/{ibtmp1,*.pid,ddl_recovery*.log,tc.log}
du -sm "$root/usr/share/lab/mysql"
