#!/bin/bash
# debian.sh offers PATTERN | debian.sh fetch PACKAGE=VERSION DIGEST FILE
# Asks the suites of /lab/debian.list; apt checks their signatures.
# "offers" prints `offer NAME VERSION SHA256` for every version of the packages whose names match PATTERN.
# "fetch" fetches a package, compares it with DIGEST unless that is empty, and puts its file FILE into /lab/work/source.
set -euo pipefail
mkdir -p /lab/work/apt/{lists,cache/archives}/partial /lab/work/apt/none
cat > /lab/work/apt/apt.conf <<EOF
APT::Sandbox::User "root";
APT::Architecture "$(dpkg --print-architecture)";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Retries "2";
Dir::State "/lab/work/apt";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "/lab/work/apt/cache";
Dir::Etc::sourcelist "/lab/debian.list";
Dir::Etc::sourceparts "/lab/work/apt/none";
Dir::Etc::preferences "/lab/work/apt/none/preferences";
Dir::Etc::preferencesparts "/lab/work/apt/none";
EOF
export APT_CONFIG=/lab/work/apt/apt.conf
# Fail if a package list cannot be fetched. Otherwise Debian would seem to have removed the packages in it.
apt-get update --error-on=any -q
case $1 in
  offers)
    names=$(apt-cache pkgnames | grep -E "$2" || true)
    for name in $names; do
      apt-cache show "$name" | awk -v name="$name" '
        /^Version: / { version = $2 }
        /^SHA256: / { print "offer", name, version, $2 }'
    done
    ;;
  fetch)
    cd /lab/work/apt
    apt-get download -q "$2"
    deb=$(find . -maxdepth 1 -name '*.deb')
    found=$(sha256sum "$deb")
    if [ -n "$3" ] && [ "${found%% *}" != "$3" ]; then
      echo "digest mismatch: $2 has sha256 ${found%% *}, Debian's list had $3"
      exit 1
    fi
    mkdir /lab/work/source
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C /lab/work/source --strip-components="$(tr -cd / <<< "${4%/*}" | wc -c | awk '{ print $1 + 1 }')" ".$4"
    rm "$deb"
    ;;
esac
