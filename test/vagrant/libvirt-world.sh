#!/bin/bash
# libvirt-world.sh FOLDER COMMAND...
# Runs a command in a world of its own that has a libvirtd: network, mount and process namespaces in which
# nothing of the host can be disturbed. The libvirtd, its networks and its machines end with the command, however
# that ends. FOLDER keeps what libvirt keeps; it is removed by whoever made it.
set -euo pipefail
[ "${1:-}" != --inside ] || {
  shift
  folder=$1
  shift
  mount --make-rprivate /
  # The host's cgroups are not ours to use: libvirtd would try. And of /sys only what this network namespace has.
  umount -R -l /sys
  mount -t sysfs sysfs /sys
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock /run/libvirt
  for path in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    # As the packages installed it, but empty: the host's machines and networks are not known here.
    mkdir -p "$folder$path"
    [ -e "$folder$path/.made" ] || {
      [ "$path" != /etc/libvirt ] || cp -a "$path/." "$folder$path/"
      rm -rf "$folder/etc/libvirt/qemu" "$folder/etc/libvirt/storage"
      chown --reference="$path" "$folder$path"
      chmod --reference="$path" "$folder$path"
      touch "$folder$path/.made"
    }
    mount --bind "$folder$path" "$path"
  done
  ip link set lo up
  export LIBVIRT_DEFAULT_URI=qemu:///system
  virtlogd -d
  libvirtd -d
  for _ in $(seq 100); do
    virsh list > /dev/null 2>&1 && break
    sleep 0.1
  done
  # The first process has to reap what others leave behind, or libvirt waits for its own dead for ever. And Ctrl-C
  # is for the command: it ends in good order, and with it everything here.
  trap '' INT HUP
  (trap - INT HUP; exec "$@") &
  command=$!
  while :; do
    status=0
    wait -n -p ended || status=$?
    [ "${ended:-}" != "$command" ] || exit "$status"
  done
}
exec unshare --net --mount --pid --fork --mount-proc --kill-child=KILL "$0" --inside "$@"
