#!/bin/bash
# image.sh FROM REFERENCE ARCHITECTURE TLS DIGEST
# Pulls the image FROM into /lab/out/image.tar under the name REFERENCE. TLS is true if the registry uses TLS, false
# otherwise. DIGEST is the pinned sha256 of the image's manifest, or of its manifest list for several architectures; any
# registry may deliver it.
# If the image is not available, this leaves /lab/out empty and exits with 0, because the caller can build it instead.
# If the image differs from its digest, it exits with 1.
set -euo pipefail
from=$1 reference=$2 architecture=$3 tls=$4 digest=$5
archive=docker-archive:/lab/out/image.tar
# The host's signature policy does not apply here, since the image is pinned by its digest.
client=(skopeo --insecure-policy --tmpdir /tmp --override-os linux --override-arch "$architecture" --command-timeout 15m)
none() {
  echo "$from is not available from here: $1"
  rm -f /lab/out/*
  exit 0
}
if ! "${client[@]}" copy --quiet --retry-times 2 --src-tls-verify="$tls" "docker://${from%:*}@sha256:$digest" \
  "$archive:$reference" > /tmp/said 2>&1; then
  cat /tmp/said
  # Find out whether the registry has a different image under this name.
  if "${client[@]}" inspect --raw --tls-verify="$tls" "docker://$from" > /tmp/manifest; then
    found=$(sha256sum < /tmp/manifest)
    wrong=
    [ "${found%% *}" = "$digest" ] || wrong="$from has sha256 ${found%% *}, pinned is $digest"
  fi
  if grep -qiE 'd(oes|id) not match' /tmp/said; then
    wrong=${wrong:-"$from does not deliver the pinned $digest: $(tail -n 1 /tmp/said)"}
  fi
  [ -z "${wrong:-}" ] || { rm -f /lab/out/*; echo "digest mismatch: $wrong"; exit 1; }
  none 'it could not be pulled'
fi
# The pinned image may exist for a single architecture only, which need not be ours.
found=$("${client[@]}" inspect --config --format '{{.Architecture}}' "$archive") || none 'it is not an image'
[ "$found" = "$architecture" ] || none "it is for $found"
