#!/bin/bash
# Makes the disk that every machine boots from. Runs as root in mount and process namespaces of its own.
# One per line:
#   PROGRAMS  files for /usr/bin                    PLUGINS  files for /opt/cni/bin
#   IMAGES    reference=archive, for containerd     MASKED   units that must not start
# and:
#   SYSTEM    root directory of a Debian system     FILES    the project's own files, laid over it
#   RELEASE   what /etc/lab/base-release says       SIZE     of the disk
#   WORK      a scratch directory                   OUT      where disk.ext4 goes
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
  # `target/unit`: not started by that target, though somebody else may start it; `unit`: by nobody.
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
# Keys and identities are a machine's own: they come with its seed, or are made at its first boot.
rm -f etc/ssh/ssh_host_* etc/hostname var/lib/dbus/machine-id etc/iscsi/initiatorname.iscsi
# Keys that Debian made when it installed: every machine of every lab would have the same.
rm -rf etc/corosync/qnetd/nssdb etc/corosync/qdevice/net/nssdb etc/pacemaker/authkey
: > etc/machine-id
: > etc/fstab
mkdir -p etc/lab/boot.d etc/cni/net.d etc/kubernetes/manifests var/lib/kubelet
install -d -m 700 root/.ssh
echo "$RELEASE" > etc/lab/base-release
ldconfig -r .

echo 'Importing the images'
# Nothing is pulled or unpacked when a lab comes up: the disk carries containerd's own storage.
mount --bind . .
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
# A mistake in it would lock everybody out of every machine.
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
# Into a variable: `grep -q` closes a pipe before ctr has written it all, and with pipefail that is an error.
imported=$(chroot . ctr --namespace k8s.io images ls -q)
for image in "${images[@]}"; do
  grep -qxF "${image%%=*}" <<< "$imported" || { echo "error: ${image%%=*} is not there"; exit 1; }
done
kill $containerd
wait $containerd || true
# Lazily: where a mount came from another user namespace, those below it cannot be taken away one by one.
umount --lazy sys dev proc run tmp
cd "$WORK"
umount "$root"

echo 'Making the file system'
truncate -s "$SIZE" "$OUT/disk.ext4"
# With the storage known to be zero the inode tables are neither written here nor by the machine later.
# The journal is what makes a machine survive a power cut: without one, files that the kubelet had just renamed
# into place were empty after it, and the kubelet never started again.
mke2fs -q -F -t ext4 -L lab -m 0 -J size=32 -E assume_storage_prezeroed=1,nodiscard -d "$root" "$OUT/disk.ext4"
du --block-size=1M "$OUT/disk.ext4"
