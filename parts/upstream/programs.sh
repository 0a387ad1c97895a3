#!/bin/bash
# programs.sh OUT [--archive ADDRESS CHECKSUM | ADDRESS] PROGRAM...
# Fetches programs as their own project released and built them: each by itself, below ADDRESS and compared with
# ADDRESS/PROGRAM.sha256, or out of an archive that is compared with the first word of CHECKSUM.
# Where one cannot be had, OUT is empty and the exit code 0: they can be compiled as well.
set -euo pipefail
out=$1
shift
# apt's own downloader: it is there wherever Debian packages are fetched, and knows the host's proxies.
fetch() {
  /usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::Retries=2 \
    -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 download-file "$@"
}
# compared ADDRESS CHECKSUM FILE
compared() {
  fetch "$2" "$3.sum" && read -r digest _ < <(cat "$3.sum"; echo) && [[ $digest =~ ^[0-9a-f]{64}$ ]] &&
    fetch "$1" "$3" "SHA256:$digest" && rm "$3.sum"
}
none() {
  echo "$1 cannot be had from here as it was released"
  rm -rf "${out:?}"/*
  exit 0
}
if [ "$1" = --archive ]; then
  address=$2 checksum=$3
  shift 3
  compared "$address" "$checksum" "$out/archive" || none "$address"
  mkdir "$out/all"
  tar -xzf "$out/archive" -C "$out/all" || none "$address"
  for program in "$@"; do
    found=$(find "$out/all" -name "$program" -type f)
    [ -f "$found" ] && install -m 755 "$found" "$out/$program" || none "$program of $address"
  done
  rm -r "$out/archive" "$out/all"
else
  address=$1
  shift
  for program in "$@"; do
    compared "$address/$program" "$address/$program.sha256" "$out/$program" || none "$address/$program"
    chmod 755 "$out/$program"
  done
fi
