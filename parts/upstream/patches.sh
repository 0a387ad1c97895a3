#!/bin/bash
# patches.sh: of PATCHES in /lab/src, those that the source in ARCHIVE does not have already, one a line in
# /lab/work/patches. A fix that went into the kernel itself needs no patch any more.
set -euo pipefail
mkdir /lab/work/patched
cd /lab/work/patched
mapfile -t files < <(cd /lab/src && sed -n 's#^+++ b/\([^[:space:]]*\).*#*/\1#p' $PATCHES | sort -u)
tar -xf "$ARCHIVE" --strip-components=1 --wildcards "${files[@]}" || true
# Only what cannot be applied may be there: the lines of a short patch are soon found somewhere else.
for file in $PATCHES; do
  if ! patch --strip=1 --batch --forward --dry-run < "/lab/src/$file" > /dev/null &&
    patch --strip=1 --batch --reverse --dry-run --fuzz=0 < "/lab/src/$file" > /dev/null; then
    echo "$file is in it already" >&2
  else
    echo "$file"
  fi
done > /lab/work/patches
