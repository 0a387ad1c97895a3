#!/bin/bash
# customize.sh ROOT: installs Cassandra from Maven Central and cqlsh from PyPI under the paths of the upstream image.
set -euo pipefail
root=$1 files=$(dirname "$0")
echo 'cassandra:x:999:' >> "$root/etc/group"
echo 'cassandra:x:999:999::/var/lib/cassandra:/bin/bash' >> "$root/etc/passwd"
install -d "$root/opt/cassandra/bin" "$root/opt/cassandra/pylib" "$root/etc/cassandra"
cp -r --no-preserve=ownership "$LAB_JARS/lib" "$root/opt/cassandra/lib"
cp -r --no-preserve=ownership "$LAB_PYTHON/lib/." "$root/opt/cassandra/pylib/"
for program in cassandra nodetool cqlsh; do
  install -m 755 "$files/$program" "$root/opt/cassandra/bin/$program"
  ln -s "/opt/cassandra/bin/$program" "$root/usr/local/bin/$program"
done
install -m 644 "$files/jvm.options" "$files/logback.xml" "$files/logback-tools.xml" "$root/etc/cassandra/"
install -m 755 "$files/entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
install -m 755 "$files/ready-probe.sh" "$root/ready-probe.sh"
install -d -o 999 -g 999 "$root/var/lib/cassandra" "$root/var/log/cassandra"
chroot "$root" chown -R cassandra: /etc/cassandra
chroot "$root" nodetool help status | head -n 4
chroot "$root" cqlsh --version
