#!/bin/bash
# Makes a disk that a virtual machine boots by itself, of the file system that the base disk's build.sh made.
# Runs in the tools' root, in mount and process namespaces of its own.
#   ARCH  amd64 or arm64    /lab/work/disk.ext4  the file system; becomes /lab/out/disk.raw
set -euo pipefail
fs=/lab/work/disk.ext4
disk=/lab/out/disk.raw
mib=1048576
size=$(stat -c %s "$fs")
# The first MiB is for the boot loader, or on arm64 the first 65, with the firmware's own partition.
start=$([ "$ARCH" = arm64 ] && echo 65 || echo 1)
truncate -s $((size + start * mib)) "$disk"

echo 'Partitioning'
# sfdisk counts in sectors of 512 bytes: 2048 a MiB.
case $ARCH in
  amd64) sfdisk -q "$disk" <<< $'label: dos\nstart=2048, type=83, bootable' ;;
  arm64) sfdisk -q "$disk" <<< $'label: dos\nstart=2048, size=131072, type=ef\nstart=133120, type=83' ;;
esac

echo 'Copying the file system'
dd if="$fs" of="$disk" bs=$mib seek="$start" conv=sparse,notrunc status=none

echo 'Installing the boot loader'
modules='ext2 part_msdos normal linux search search_label configfile echo'
case $ARCH in
  amd64)
    # Both parts of GRUB as they come: by itself the first sector loads the second, which loads those behind it.
    grub-mkimage -O i386-pc -o /tmp/core.img -p '(hd0,msdos1)/boot/grub' biosdisk $modules
    # The partition table, from byte 440 on, stays.
    dd if=/usr/lib/grub/i386-pc/boot.img of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if=/tmp/core.img of="$disk" bs=512 seek=1 conv=notrunc status=none
    ;;
  arm64)
    # A line for each command: GRUB's first reader knows no `;`.
    printf '%s\n' 'search --label lab --set=root' 'set prefix=($root)/boot/grub' 'configfile $prefix/grub.cfg' > /tmp/early.cfg
    grub-mkimage -O arm64-efi -o /tmp/BOOTAA64.EFI -p /boot/grub -c /tmp/early.cfg fat $modules
    truncate -s 64M /tmp/esp
    mkfs.vfat -n EFI /tmp/esp > /dev/null
    mmd -i /tmp/esp ::/EFI ::/EFI/BOOT
    mcopy -i /tmp/esp /tmp/BOOTAA64.EFI ::/EFI/BOOT/BOOTAA64.EFI
    dd if=/tmp/esp of="$disk" bs=$mib seek=1 conv=sparse,notrunc status=none
    ;;
esac
