#!/bin/bash
# go.sh list | build: fetches the modules of /lab/src, or compiles its programs into /lab/out, inside the
# builder root. PACKAGES: what to compile, LDFLAGS: for the linker.
set -euo pipefail
cd /lab/src
case $1 in
  list)
    # All that will be compiled, hence all modules that have to be there, and no others.
    go list -deps "$PACKAGES" | wc -l
    ;;
  build)
    # Neither debug information nor the symbol table is ever looked at; to leave it out from the start
    # saves a tenth of the time.
    go build -v -trimpath -gcflags=all=-dwarf=false -ldflags="$LDFLAGS" -o /lab/out/ "$PACKAGES"
    ;;
esac
