#!/bin/bash
# enter.sh ROOT [FROM:TO[:ro]]... -- COMMAND...
# Runs a command inside the builder root, which stays read-only, with files and directories of the host bound into it.
# Mount points below /lab are created automatically. The caller has made new mount and process namespaces, so everything
# mounted here disappears with the command.
set -euo pipefail
root=$1
shift
mount --bind "$root" "$root"
mount -t tmpfs -o mode=755 tmpfs "$root/lab"
while [ "$1" != -- ]; do
  IFS=: read -r from to mode <<< "$1"
  if [ ! -e "$root$to" ]; then
    if [ -d "$from" ]; then mkdir -p "$root$to"; else touch "$root$to"; fi
  fi
  mount --bind "$from" "$root$to"
  [ "$mode" != ro ] || mount -o remount,bind,ro "$root$to"
  shift
done
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
