#!/bin/bash
# customize.sh ROOT: ZooKeeper of Maven Central, with the programs and the user that the Kubernetes tutorial's image
# has: zkServer.sh, zkCli.sh, start-zookeeper, zookeeper-ready; 1000 is zookeeper.
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
# The tutorial removes a program to see a probe fail, as this user.
chroot "$root" chown -R zookeeper: /opt/zookeeper/bin /opt/zookeeper/conf /var/lib/zookeeper /var/log/zookeeper
chroot "$root" /opt/zookeeper/bin/zkServer.sh version
