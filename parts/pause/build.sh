#!/bin/bash
# build.sh fetch | build.sh compile
# "fetch" takes the source of the pause program from the Kubernetes module of /lab/src; it runs inside the builder root.
# "compile" compiles it with CC; it runs inside the root that has that compiler.
set -euo pipefail
case $1 in
  fetch)
    cd /lab/src
    module=$(go mod download -json k8s.io/kubernetes | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    cp "$module/build/pause/linux/pause.c" /lab/work/
    ;;
  compile)
    "$CC" -Os -Wall -Werror -static -s -DVERSION="$VERSION" -o /lab/out/pause /lab/work/pause.c
    ;;
esac
