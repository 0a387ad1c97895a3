#!/bin/bash
# customize.sh ROOT: installs ZooKeeper from Maven Central with the programs of the Kubernetes tutorial's image
# (zkServer.sh, zkCli.sh, start-zookeeper, zookeeper-ready) and its user zookeeper, 1000.
set -euo pipefail
root=$1 files=$(dirname "$0")
echo 'zookeeper:x:1000:' >> "$root/etc/group"
echo 'zookeeper:x:1000:1000::/var/lib/zookeeper:/bin/bash' >> "$root/etc/passwd"
install -d "$root/opt/zookeeper/"{bin,conf}
cp -r --no-preserve=ownership "$LAB_JARS/lib" "$root/opt/zookeeper/lib"
for program in zkServer.sh zkCli.sh start-zookeeper zookeeper-ready; do
  install -m 755 "$files/$program" "$root/opt/zookeeper/bin/$program"
done
install -m 644 "$files/logback.xml" "$root/opt/zookeeper/conf/logback.xml"
install -d "$root/var/lib/zookeeper" "$root/var/log/zookeeper"
# In the tutorial, this user removes a program to make a probe fail.
chroot "$root" chown -R zookeeper: /opt/zookeeper/bin /opt/zookeeper/conf /var/lib/zookeeper /var/log/zookeeper
chroot "$root" /opt/zookeeper/bin/zkServer.sh version
