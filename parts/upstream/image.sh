#!/bin/bash
# image.sh FROM REFERENCE ARCHITECTURE TLS
# Pulls an image into /lab/out/image.tar, where it is called REFERENCE. TLS: whether its registry has it, true or false.
# Where it cannot be had, /lab/out is empty and the exit code 0: it can be built as well.
set -euo pipefail
from=$1 reference=$2 architecture=$3 tls=$4
archive=docker-archive:/lab/out/image.tar
# Which images may be had is no business of a policy of this host's: one is asked for, by name.
client=(skopeo --insecure-policy --tmpdir /tmp --override-os linux --override-arch "$architecture" --command-timeout 15m)
none() {
  echo "$from cannot be had from here: $1"
  rm -f /lab/out/*
  exit 0
}
"${client[@]}" copy --quiet --retry-times 2 --src-tls-verify="$tls" "docker://$from" "$archive:$reference" ||
  none 'not pulled'
# A mirror may have an image of one processor only, that of whoever filled it.
found=$("${client[@]}" inspect --config --format '{{.Architecture}}' "$archive") || none 'it is no image'
[ "$found" = "$architecture" ] || none "it is for $found"
