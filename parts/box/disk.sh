#!/bin/bash
# Makes a disk that a virtual machine can boot, from the file system that the base disk's build.sh made.
# Runs in the tools' root, in its own mount and process namespaces.
#   ARCH  amd64 or arm64    /lab/work/disk.ext4  the file system    /lab/out/disk.raw  the result
set -euo pipefail
fs=/lab/work/disk.ext4
disk=/lab/out/disk.raw
mib=1048576
size=$(stat -c %s "$fs")
# On amd64, the first MiB is for the boot loader. On arm64, the first 65 MiB include the firmware's own partition.
start=$([ "$ARCH" = arm64 ] && echo 65 || echo 1)
truncate -s $((size + start * mib)) "$disk"

echo 'Partitioning'
# sfdisk counts in sectors of 512 bytes, 2048 per MiB.
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
    # GRUB's two parts work unmodified in these places: the first sector loads the second one, which loads the rest.
    grub-mkimage -O i386-pc -o /tmp/core.img -p '(hd0,msdos1)/boot/grub' biosdisk $modules
    # Keep the partition table, which begins after byte 440.
    dd if=/usr/lib/grub/i386-pc/boot.img of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if=/tmp/core.img of="$disk" bs=512 seek=1 conv=notrunc status=none
    ;;
  arm64)
    # Write each command on its own line, because GRUB's early parser does not know `;`.
    printf '%s\n' 'search --label lab --set=root' 'set prefix=($root)/boot/grub' 'configfile $prefix/grub.cfg' > /tmp/early.cfg
    grub-mkimage -O arm64-efi -o /tmp/BOOTAA64.EFI -p /boot/grub -c /tmp/early.cfg fat $modules
    truncate -s 64M /tmp/esp
    mkfs.vfat -n EFI /tmp/esp > /dev/null
    mmd -i /tmp/esp ::/EFI ::/EFI/BOOT
    mcopy -i /tmp/esp /tmp/BOOTAA64.EFI ::/EFI/BOOT/BOOTAA64.EFI
    dd if=/tmp/esp of="$disk" bs=$mib seek=1 conv=sparse,notrunc status=none
    ;;
esac
