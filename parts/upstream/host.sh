#!/bin/bash
# host.sh ROOT [FROM:TO[:ro]]... -- COMMAND...
# Runs a program of the host in its own root directory, made at ROOT. The program sees the host's programs, the host's
# network settings, and the files that are bound for it. The caller has made new mount and process namespaces for it.
set -euo pipefail
root=$1
shift
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir -p "$root"/{dev,etc,lab,proc,tmp,usr,var/lib/dpkg,var/log}
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# read_only FROM [TO]
read_only() {
  [ -e "$1" ] || return 0
  local to=$root${2:-$1}
  if [ -d "$1" ]; then mkdir -p "$to"; else mkdir -p "${to%/*}"; touch "$to"; fi
  mount --rbind "$1" "$to"
  # In a user namespace, a remount must repeat the restrictions that the original mount has (nosuid, nodev, noexec), and
  # not every mount has the same ones.
  for without in '' ,nosuid,nodev ,nosuid,nodev,noexec; do
    if mount -o "remount,bind,ro$without" "$to" 2> /dev/null; then return 0; fi
  done
  echo "error: $1 cannot be mounted read-only"
  exit 1
}
read_only /usr
for folder in /bin /lib /lib32 /lib64 /libx32 /sbin; do
  # On a host where these are links into /usr, make the same links here.
  if [ -L "$folder" ]; then cp -P "$folder" "$root$folder"; else read_only "$folder"; fi
done
for path in /etc/{alternatives,apt,ca-certificates,ld.so.cache,pki,ssl} /etc/{hosts,nsswitch.conf,passwd,group,resolv.conf}; do
  read_only "$path"
done
: > "$root/var/lib/dpkg/status"
while [ "$1" != -- ]; do
  IFS=: read -r from to mode <<< "$1"
  if [ "$mode" = ro ]; then
    read_only "$from" "$to"
  else
    if [ -d "$from" ]; then mkdir -p "$root$to"; else touch "$root$to"; fi
    mount --bind "$from" "$root$to"
  fi
  shift
done
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
