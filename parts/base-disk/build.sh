#!/bin/bash
# Makes the disk that every machine boots from. Runs as root in its own mount and process namespaces.
# Variables with one entry per line:
#   PROGRAMS  files for /usr/bin                    PLUGINS  files for /opt/cni/bin
#   IMAGES    reference=archive, for containerd     MASKED   units that must not start
# Other variables:
#   SYSTEM    root directory of a Debian system     FILES    the project's own files, copied over it
#   RELEASE   content of /etc/lab/base-release      SIZE     of the disk
#   WORK      a scratch directory                   OUT      the folder for disk.ext4
set -euo pipefail
root=$WORK/root
mapfile -t programs <<< "$PROGRAMS"
mapfile -t plugins <<< "$PLUGINS"
mapfile -t images <<< "$IMAGES"
mapfile -t masked <<< "$MASKED"

echo 'Laying out the system'
cp -a --reflink=auto "$SYSTEM" "$root"
cp -r --no-preserve=ownership "$FILES/." "$root/"
install -m 755 -t "$root/usr/bin" "${programs[@]}"
install -D -m 755 -t "$root/opt/cni/bin" "${plugins[@]}"

cd "$root"
ln -sf ../local/sbin/lab-init usr/sbin/init
ln -sf /usr/lib/systemd/system/multi-user.target etc/systemd/system/default.target
for unit in "${masked[@]}"; do
  # `target/unit`: that target does not start the unit, but other units may. `unit`: nothing may start it.
  case $unit in
    */*) mkdir -p "etc/systemd/system/${unit%/*}.wants"; ln -sfn /dev/null "etc/systemd/system/${unit%/*}.wants/${unit#*/}" ;;
    *) ln -sfn /dev/null "etc/systemd/system/$unit" ;;
  esac
done
for unit in lab-network lab-boot containerd kubelet; do
  target=$(sed -n 's/^WantedBy=//p' "etc/systemd/system/$unit.service")
  mkdir -p "etc/systemd/system/$target.wants"
  ln -sf "../$unit.service" "etc/systemd/system/$target.wants/"
done
# Each machine needs its own keys and identities. They come with its seed, or it makes them at its first boot.
rm -f etc/ssh/ssh_host_* etc/hostname var/lib/dbus/machine-id etc/iscsi/initiatorname.iscsi
# Debian's packages made these keys during their installation. Every machine of every lab would share them.
rm -rf etc/corosync/qnetd/nssdb etc/corosync/qdevice/net/nssdb etc/pacemaker/authkey
: > etc/machine-id
: > etc/fstab
mkdir -p etc/lab/boot.d etc/cni/net.d etc/kubernetes/manifests var/lib/kubelet
install -d -m 700 root/.ssh
echo "$RELEASE" > etc/lab/base-release
ldconfig -r .

echo 'Importing the images'
# Import the images into containerd's storage on the disk, so that `lab up` neither pulls nor unpacks them.
mount --bind . .
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
# Test sshd's configuration, because a mistake in it would lock everybody out of every machine.
mkdir run/sshd tmp/images
chroot . ssh-keygen -q -t ed25519 -N '' -f /tmp/key
chroot . sshd -t -h /tmp/key
chroot . /usr/bin/containerd --log-level warn > "$WORK/containerd.log" 2>&1 &
containerd=$!
for _ in $(seq 100); do
  chroot . ctr version > /dev/null 2>&1 && break
  kill -0 $containerd 2> /dev/null || { cat "$WORK/containerd.log"; exit 1; }
  sleep 0.1
done
for image in "${images[@]}"; do
  touch tmp/images/archive
  mount --bind "${image#*=}" tmp/images/archive
  chroot . ctr --namespace k8s.io images import --local --discard-unpacked-layers /tmp/images/archive ||
    { cat "$WORK/containerd.log"; exit 1; }
  umount tmp/images/archive
done
# Use a variable instead of a pipe: `grep -q` closes the pipe before ctr has written everything, and pipefail makes that
# an error.
imported=$(chroot . ctr --namespace k8s.io images ls -q)
for image in "${images[@]}"; do
  grep -qxF "${image%%=*}" <<< "$imported" || { echo "error: ${image%%=*} is not there"; exit 1; }
done
kill $containerd
wait $containerd || true
# Unmount lazily, because mounts that came from another user namespace cannot be unmounted one by one.
umount --lazy sys dev proc run tmp
cd "$WORK"
umount "$root"

echo 'Making the file system'
truncate -s "$SIZE" "$OUT/disk.ext4"
# The storage is known to be zero, so neither mke2fs here nor the machine later has to write the inode tables.
# The file system needs a journal to survive a power cut. Without one, files that the kubelet had just renamed into
# place were empty afterwards, and the kubelet never started again.
mke2fs -q -F -t ext4 -L lab -m 0 -J size=32 -E assume_storage_prezeroed=1,nodiscard -d "$root" "$OUT/disk.ext4"
du --block-size=1M "$OUT/disk.ext4"
