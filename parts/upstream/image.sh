#!/bin/bash
# image.sh FROM REFERENCE ARCHITECTURE TLS DIGEST
# Pulls an image into /lab/out/image.tar, where it is called REFERENCE. TLS: whether its registry has it, true or false.
# DIGEST: the sha256 of its manifest, or of the list of its manifests for several processors, whoever is asked.
# Where it cannot be had, /lab/out is empty and the exit code 0: it can be built as well. Where it is another than the
# pinned one, it is 1.
set -euo pipefail
from=$1 reference=$2 architecture=$3 tls=$4 digest=$5
archive=docker-archive:/lab/out/image.tar
# Which images may be had is no business of a policy of this host's: one is asked for, by its digest.
client=(skopeo --insecure-policy --tmpdir /tmp --override-os linux --override-arch "$architecture" --command-timeout 15m)
none() {
  echo "$from cannot be had from here: $1"
  rm -f /lab/out/*
  exit 0
}
if ! "${client[@]}" copy --quiet --retry-times 2 --src-tls-verify="$tls" "docker://${from%:*}@sha256:$digest" \
  "$archive:$reference" > /tmp/said 2>&1; then
  cat /tmp/said
  # What is there instead, if anything.
  if "${client[@]}" inspect --raw --tls-verify="$tls" "docker://$from" > /tmp/manifest; then
    found=$(sha256sum < /tmp/manifest)
    wrong=
    [ "${found%% *}" = "$digest" ] || wrong="$from has sha256 ${found%% *}, pinned is $digest"
  fi
  if grep -qiE 'd(oes|id) not match' /tmp/said; then
    wrong=${wrong:-"what $from gives for the pinned $digest is something else: $(tail -n 1 /tmp/said)"}
  fi
  [ -z "${wrong:-}" ] || { rm -f /lab/out/*; echo "digest mismatch: $wrong"; exit 1; }
  none 'not pulled'
fi
# Pinned may be an image of one processor only.
found=$("${client[@]}" inspect --config --format '{{.Architecture}}' "$archive") || none 'it is no image'
[ "$found" = "$architecture" ] || none "it is for $found"
