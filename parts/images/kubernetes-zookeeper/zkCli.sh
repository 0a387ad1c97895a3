#!/bin/bash
# zkCli.sh [-server HOST:PORT] [COMMAND...]
conf=${ZOOCFGDIR:-/opt/zookeeper/conf}
exec java -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true \
  -Dzookeeper.root.logger=WARN -cp "$conf:/opt/zookeeper/lib/*" org.apache.zookeeper.ZooKeeperMain "$@"
