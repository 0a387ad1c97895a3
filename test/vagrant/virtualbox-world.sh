#!/bin/bash
# virtualbox-world.sh FOLDER COMMAND...
# Runs a command in a world of its own in which VBoxManage is Debian's (sid, contrib), in a root directory of its own:
# nothing is installed on the host. FOLDER is what both see under the same name: everything that VirtualBox shall
# find must lie in there. The root is made once, and kept: LAB_CACHE/test-tools/virtualbox (740 MB, a minute).
#
# It is the real VBoxManage, in mount, process and network namespaces. What needs a kernel driver it cannot do: start
# a machine, make a host-only interface.
set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1")
shift
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lab}
root=$cache/test-tools/virtualbox
if [ "${1:-}" != --inside ]; then
  if [ ! -e "$root/usr/bin/VBoxManage" ]; then
    echo "VirtualBox of Debian sid is fetched into $root: 740 MB, about a minute" >&2
    rm -rf "$root.new"
    mkdir -p "${root%/*}"
    # sid is signed for a week only; its packages are checked all the same.
    mmdebstrap --mode=root --variant=minbase --format=directory --include=virtualbox \
      --aptopt='Acquire::Check-Valid-Until "false"' \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' \
      sid "$root.new" "deb ${LAB_DEBIAN_MIRROR:-http://deb.debian.org/debian} sid main contrib" >&2
    mv "$root.new" "$root"
  fi
  mkdir -p "$folder/bin" "$folder/home" "$folder/tmp" "$root$folder"
  # The network has to be one's own from the start: a loopback, and what tests make.
  exec unshare --net --mount --pid --fork --mount-proc --kill-child=KILL "$0" "$folder" --inside "$@"
fi
shift
mount --make-rprivate /
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount --bind "$folder/tmp" "$root/tmp"
mount --bind "$folder" "$root$folder"
ip link set lo up 2> /dev/null || true
cat > "$folder/bin/VBoxManage" << END
#!/bin/sh
exec chroot '$root' /usr/bin/env -i PATH=/usr/bin:/bin HOME='$folder/home' VBOX_USER_HOME='$folder/home/VirtualBox' \\
  LC_ALL=C.UTF-8 sh -c 'cd "\$0" 2> /dev/null; exec VBoxManage "\$@"' "\$PWD" "\$@"
END
chmod +x "$folder/bin/VBoxManage"
export PATH=$folder/bin:$PATH LAB_TEST_VBOX=$folder LAB_REAL_VBOXMANAGE=$folder/bin/VBoxManage
VBoxManage setproperty machinefolder "$folder/machines" > /dev/null 2>&1
trap '' INT HUP
(trap - INT HUP; exec "$@") &
command=$!
while :; do
  status=0
  wait -n -p ended || status=$?
  [ "${ended:-}" != "$command" ] || exit "$status"
done
