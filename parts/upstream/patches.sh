#!/bin/bash
# patches.sh: writes to /lab/work/patches, one per line, those of PATCHES in /lab/src that the source in ARCHIVE still
# needs. A fix that the kernel has adopted needs no patch any more.
set -euo pipefail
mkdir /lab/work/patched
cd /lab/work/patched
mapfile -t files < <(cd /lab/src && sed -n 's#^+++ b/\([^[:space:]]*\).*#*/\1#p' $PATCHES | sort -u)
tar -xf "$ARCHIVE" --strip-components=1 --wildcards "${files[@]}" || true
# A patch counts as adopted only if it cannot be applied, and can be reverted without fuzz. Checking the second
# condition alone is not enough, because the lines of a short patch often occur elsewhere in a file.
for file in $PATCHES; do
  if ! patch --strip=1 --batch --forward --dry-run < "/lab/src/$file" > /dev/null &&
    patch --strip=1 --batch --reverse --dry-run --fuzz=0 < "/lab/src/$file" > /dev/null; then
    echo "the source already contains $file" >&2
  else
    echo "$file"
  fi
done > /lab/work/patches
