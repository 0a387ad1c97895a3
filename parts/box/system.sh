#!/bin/bash
# system.sh ROOT FILES
# Changes a Debian system so that it boots by itself and Vagrant can log in to it.
set -euo pipefail
root=$1
cp -r --no-preserve=ownership "$2/." "$root/"
chmod 440 "$root/etc/sudoers.d/vagrant"
chroot "$root" visudo --check --quiet
# Use the password `*`, which matches nothing. An account without any password is locked, and without PAM sshd rejects
# locked accounts.
chroot "$root" useradd --create-home --shell /bin/bash --password '*' vagrant
chmod 700 "$root/home/vagrant/.ssh"
chmod 600 "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant

# Include only the drivers that find a disk of VirtualBox, libvirt or Hyper-V, because a small initrd loads faster.
echo 'MODULES=list' > "$root/etc/initramfs-tools/conf.d/lab"
printf '%s\n' virtio_blk virtio_scsi ahci ata_piix sd_mod >> "$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u -k all
# The boot loader looks for these links.
ln -sf boot/"$(basename "$root"/boot/vmlinuz-*)" "$root/vmlinuz"
ln -sf boot/"$(basename "$root"/boot/initrd.img-*)" "$root/initrd.img"
for unit in systemd-networkd systemd-resolved lab-host-key; do
  chroot "$root" systemctl enable --quiet "$unit"
done
rm -f "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
