#!/bin/bash
# programs.sh --archive ADDRESS DIGEST PROGRAM... | programs.sh ADDRESS PROGRAM=DIGEST...
# Fetches programs into /lab/out as their own project released them: each as a file below ADDRESS, or all from one
# archive. DIGEST is the pinned sha256, and any server may deliver the file.
# If a program is not available, this leaves /lab/out empty and exits with 0, because the caller can compile it instead.
# If a file differs from its digest, it exits with 1.
set -euo pipefail
cd /lab/out
# fetch ADDRESS FILE DIGEST
fetch() {
  # apt's own downloader exists wherever Debian packages are fetched, and it knows the host's proxies.
  /usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Dir::State=/lab/work -o Dir::Cache=/lab/work \
    -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 download-file "$1" "$2" || return
  local found
  found=$(sha256sum "$2")
  [ "${found%% *}" = "$3" ] && return
  rm -rf /lab/out/*
  echo "digest mismatch: $1 has sha256 ${found%% *}, pinned is $3"
  exit 1
}
none() {
  echo "$1 is not available from here as a release"
  rm -rf /lab/out/*
  exit 0
}
if [ "$1" = --archive ]; then
  address=$2 digest=$3
  shift 3
  fetch "$address" archive "$digest" || none "$address"
  mkdir all
  tar -xzf archive -C all || none "$address"
  for program in "$@"; do
    found=$(find all -name "$program" -type f)
    [ -f "$found" ] && install -m 755 "$found" "$program" || none "$program of $address"
  done
  rm -r archive all
else
  address=$1
  shift
  for program in "$@"; do
    name=${program%=*}
    fetch "$address/$name" "$name" "${program#*=}" || none "$address/$name"
    chmod 755 "$name"
  done
fi
