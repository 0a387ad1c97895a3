#!/bin/bash
# foreign-disk.sh MIRROR OUT
# Makes OUT, the disk of a machine that somebody else made: plain Debian with an SSH server, and a user `pi` with the
# password `raspberry` who may become root with it. It has nothing of Kubernetes and nothing of iSCSI. Runs as root in a
# mount namespace of its own.
set -euo pipefail
mirror=$1 out=$2
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
packages=systemd,systemd-sysv,udev,dbus,openssh-server,sudo,iproute2,iputils-ping,kmod,procps,netbase,ca-certificates,less,ethtool
mmdebstrap --quiet --mode=root --variant=minbase --include=$packages \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' trixie "$root" "$mirror"
chroot "$root" useradd --create-home --shell /bin/bash --groups sudo pi
echo pi:raspberry | chroot "$root" chpasswd
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
for unit in systemd-networkd ssh; do chroot "$root" systemctl --quiet enable $unit; done
chroot "$root" systemctl --quiet set-default multi-user.target
# Nobody sits at a console, and there is no hardware: these only cost time.
chroot "$root" systemctl --quiet mask getty.target systemd-networkd-wait-online systemd-binfmt \
  proc-sys-fs-binfmt_misc.automount systemd-modules-load apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
echo '/dev/ubda / ext4 defaults 0 1' > "$root/etc/fstab"
cat > "$root/etc/systemd/system/uml.service" <<UNIT
# What User-Mode Linux lacks, and no lab has to know of: a clock rate, without which cAdvisor does not start, and a
# network driver that says what it can do.
[Unit]
DefaultDependencies=no
After=systemd-networkd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'sed "s/^model name.*/&\\\\ncpu MHz\\\\t\\\\t: 2500.000/" /proc/cpuinfo > /run/cpuinfo; mount --bind /run/cpuinfo /proc/cpuinfo'
ExecStart=-/usr/sbin/ethtool -K vec0 tx-scatter-gather-fraglist off tso on
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable uml
truncate -s 6G "$work/disk"
mke2fs -q -F -t ext4 -L foreign -m 0 -E assume_storage_prezeroed=1,nodiscard -d "$root" "$work/disk"
mv "$work/disk" "$out"
