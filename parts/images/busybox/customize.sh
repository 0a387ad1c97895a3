#!/bin/bash
# customize.sh ROOT: installs one static program under all its names. The root directory contains nothing else.
set -euo pipefail
root=$1
for folder in bin sbin; do
  mkdir -p "$root/usr/$folder"
  [[ ! -d $root/$folder || -L $root/$folder ]] || { mv "$root/$folder"/* "$root/usr/$folder/"; rmdir "$root/$folder"; }
  ln -sfn "usr/$folder" "$root/$folder"
done
chroot "$root" /usr/bin/busybox --install -s /usr/bin
mkdir -p "$root"/{dev,etc,home,proc,root,run,sys,tmp,var/tmp}
chmod 1777 "$root/tmp" "$root/var/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > "$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
rm -rf "$root/var/lib/dpkg" "$root/var/lib/apt" "$root/var/cache"
chroot "$root" /bin/sh -c 'test "$(echo ok | cat)" = ok'
