#!/bin/bash
# What makes a Debian system one that boots by itself and that Vagrant can log in to.
# system.sh ROOT FILES
set -euo pipefail
root=$1
cp -r --no-preserve=ownership "$2/." "$root/"
chmod 440 "$root/etc/sudoers.d/vagrant"
chroot "$root" visudo --check --quiet
# No password at all would be a locked account, into which sshd lets nobody where PAM is not asked.
chroot "$root" useradd --create-home --shell /bin/bash --password '*' vagrant
chmod 700 "$root/home/vagrant/.ssh"
chmod 600 "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant

# Only what a disk of VirtualBox, libvirt or Hyper-V takes to be found: a small archive is read sooner.
echo 'MODULES=list' > "$root/etc/initramfs-tools/conf.d/lab"
printf '%s\n' virtio_blk virtio_scsi ahci ata_piix sd_mod >> "$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u -k all
# Where the boot loader looks.
ln -sf boot/"$(basename "$root"/boot/vmlinuz-*)" "$root/vmlinuz"
ln -sf boot/"$(basename "$root"/boot/initrd.img-*)" "$root/initrd.img"
for unit in systemd-networkd systemd-resolved lab-host-key; do
  chroot "$root" systemctl enable --quiet "$unit"
done
rm -f "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
