#!/bin/bash
# jars.sh REPOSITORY: fetches the jars of /lab/jars.sha256 into /lab/out/lib. Each line of that file has a digest and a
# path in a Maven repository. Nothing that is fetched is run or unpacked here. /lab/auth has our credentials for the
# repository, in the format of apt's auth.conf.
set -euo pipefail
mkdir /lab/work/jars
cd /lab/work/jars
grep -v '^#' /lab/jars.sha256 > ../list
wanted=()
while read -r digest path; do wanted+=("$1/$path" "$PWD/${path##*/}" ''); done < ../list
/usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Dir::State=/lab/work -o Dir::Cache=/lab/work \
  -o Dir::Etc::netrc=/lab/auth \
  -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 download-file "${wanted[@]}"
other=
while read -r digest path; do
  found=$(sha256sum "${path##*/}")
  [ "${found%% *}" = "$digest" ] && continue
  echo "digest mismatch: $1/$path has sha256 ${found%% *}, pinned is $digest"
  other=yes
done < ../list
[ -z "$other" ]
mkdir /lab/out/lib
mv -- *.jar /lab/out/lib/
