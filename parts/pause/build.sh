#!/bin/bash
# Compiles the pause program of the Kubernetes module of /lab/src, inside the builder root.
set -euo pipefail
cd /lab/src
module=$(go mod download -json k8s.io/kubernetes | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
gcc -Os -Wall -Werror -static -s -DVERSION="$VERSION" -o /lab/out/pause "$module/build/pause/linux/pause.c"
