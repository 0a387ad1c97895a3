#!/bin/bash
# build.sh fetch | compile: fetches the source of the pause program, which comes with the Kubernetes module of /lab/src,
# inside the builder root; or compiles it by CC, inside whatever root has that compiler.
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
