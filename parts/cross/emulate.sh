#!/bin/bash
# emulate.sh ARCHITECTURE EMULATOR COMMAND...
# Runs a command that needs programs for another architecture. It registers the emulator with the kernel (binfmt_misc)
# in a new user namespace with the same user IDs as outside, so nothing changes for the host.
set -euo pipefail
architecture=$1 emulator=$2
shift 2
case $architecture in
  # The first bytes of this architecture's ELF files, and a mask of the bits that matter, from the table in QEMU's
  # qemu-binfmt-conf.sh.
  arm64)
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    # A program for this architecture that comes with the compiler.
    known=${emulator%/usr/bin/*}/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1
    ;;
  *) echo "error: there is no emulator for $architecture here"; exit 1 ;;
esac
export known
if "$known" --version > /dev/null 2>&1; then exec "$@"; fi

# O and F: the kernel opens the emulator now, so a root directory that is entered later need not contain it.
# C: a program may change its user (setuid).
rule=":lab:M::$magic:$mask:$emulator:OCF"
export rule
inside='
  mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc &&
    printf %s "$rule" > /proc/sys/fs/binfmt_misc/register && "$known" --version > /dev/null || {
    echo "error: the kernel does not allow emulation here: it needs Linux 6.7, or sudo apt-get install qemu-user-static"
    exit 1
  }
  exec "$@"'
exec {gate}<> <(:)
unshare --user --keep-caps bash -euc '
  gate=$1 inside=$2
  shift 2
  read -r <&"$gate"
  exec setpriv --reuid=0 --regid=0 --clear-groups --inh-caps=-all --ambient-caps=-all \
    unshare --mount --pid --fork --kill-child=KILL --mount-proc bash -uc "$inside" emulated "$@"
' unshare "$gate" "$inside" "$@" &
child=$!
# Only a process outside a user namespace can map more than one user into it. Map all users that exist here, range by
# range. The namespace is ready for this as soon as unshare is in a namespace other than ours.
until [ "$(readlink "/proc/$child/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do
  kill -0 "$child" 2> /dev/null || { echo 'error: this host does not allow new user namespaces'; exit 1; }
  sleep 0.01
done
for map in uid_map gid_map; do awk '{ print $1, $1, $3 }' "/proc/self/$map" > "/proc/$child/$map"; done
echo >&"$gate"
wait "$child"
