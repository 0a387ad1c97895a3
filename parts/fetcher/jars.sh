#!/bin/bash
# jars.sh: fetches the jars that pom.xml asks for, with all that they need, and sees that they are those of
# jars.sha256, no more and no fewer. Inside the fetcher root; /lab holds both files.
#   to write a new jars.sha256: run it, and take what it leaves in /lab/out/jars.sha256
set -euo pipefail
settings=()
[[ ! -e /lab/settings.xml ]] || settings=(--settings /lab/settings.xml)
cp /lab/pom.xml /lab/work/
cd /lab/work
mvn --batch-mode --no-transfer-progress "${settings[@]}" -Dmaven.repo.local=/lab/work/repository \
  dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=/lab/out/lib
cd /lab/out/lib
# Native code for other systems: no machine of a lab could run it.
rm -f ./*-{osx,windows}-*.jar ./*-linux-aarch_64.jar
sha256sum -- *.jar > ../jars.sha256
diff /lab/jars.sha256 ../jars.sha256 || { echo 'error: these are not the pinned jars'; exit 1; }
