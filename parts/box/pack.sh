#!/bin/bash
# Packs the disk as a Vagrant box. Runs in the tools' root.
#   PROVIDER  libvirt or virtualbox    /lab/disk/disk.raw  the disk    /lab/work/box  the box's other files
#   NAME      of the file in /lab/out
set -euo pipefail
cd /lab/work/box
case $PROVIDER in
  libvirt)
    echo 'Compressing the disk'
    qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd,lazy_refcounts=on -m 4 -W /lab/disk/disk.raw box.img
    ;;
  virtualbox)
    echo 'Compressing the disk'
    qemu-img convert -f raw -O vmdk -o subformat=streamOptimized /lab/disk/disk.raw box-disk001.vmdk
    ;;
esac
# A fixed order, date and owner, so that the same parts always make the same box.
tar --create --file "/lab/out/$NAME" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1767225600 -- *
