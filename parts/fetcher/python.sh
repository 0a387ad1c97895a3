#!/bin/bash
# python.sh: fetches the Python packages of /lab/requirements.txt, each with its digest, for the Python of Debian
# bookworm. It runs inside the fetcher root.
set -euo pipefail
pip install --quiet --no-cache-dir --disable-pip-version-check --cert /etc/ssl/certs/ca-certificates.crt \
  --require-hashes --no-deps --only-binary=:all: --no-compile \
  --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 \
  --target /lab/out/lib --requirement /lab/requirements.txt
find /lab/out/lib -maxdepth 1
