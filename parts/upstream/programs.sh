#!/bin/bash
# release.sh BASE OUT PROGRAM...
# Fetches programs as their own project released and built them, each compared with BASE/PROGRAM.sha256.
# Where one cannot be had, OUT is empty and the exit code 0: they can be compiled as well.
set -euo pipefail
base=$1 out=$2
shift 2
# apt's own downloader: it is there wherever Debian packages are fetched, and knows the host's proxies.
fetch() {
  /usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::Retries=2 \
    -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 download-file "$@"
}
for program in "$@"; do
  sum=$out/$program.sha256
  if fetch "$base/$program.sha256" "$sum" &&
    { digest=$(< "$sum"); [[ $digest =~ ^[0-9a-f]{64}$ ]]; } &&
    fetch "$base/$program" "$out/$program" "SHA256:$digest"; then
    chmod 755 "$out/$program"
    rm "$sum"
  else
    echo "$base/$program cannot be had from here as it was released: compiling"
    rm -f "${out:?}"/*
    exit 0
  fi
done
