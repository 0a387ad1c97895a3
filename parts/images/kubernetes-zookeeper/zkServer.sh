#!/bin/bash
# zkServer.sh start-foreground | status | version
set -euo pipefail
conf=${ZOOCFGDIR:-/opt/zookeeper/conf}
[[ ! -r $conf/java.env ]] || . "$conf/java.env"
run=(java -cp "$conf:/opt/zookeeper/lib/*")
case ${1-} in
  start-foreground)
    # shellcheck disable=SC2086
    exec "${run[@]}" -XX:+UseSerialGC -Djava.net.preferIPv4Stack=true -Dzookeeper.admin.enableServer=false \
      "-Dzookeeper.root.logger=${ZOO_LOG_LEVEL:-INFO}" ${JVMFLAGS-} \
      org.apache.zookeeper.server.quorum.QuorumPeerMain "$conf/zoo.cfg"
    ;;
  status)
    mode=$(echo srvr | nc -w 5 127.0.0.1 "$(sed -n 's/^clientPort=//p' "$conf/zoo.cfg")" | grep ^Mode)
    echo "$mode"
    ;;
  version) exec "${run[@]}" org.apache.zookeeper.version.VersionInfoMain ;;
  *) echo 'Usage: zkServer.sh {start-foreground|status|version}' >&2; exit 2 ;;
esac
