/**
 * The namespaces of a seat, and the contents of its root folder. That folder contains only what a student needs of
 * this host: programs, a few files of /etc, Node, `lab`, the parts, and the seat's home folder. Only the last is
 * writable. The only network interface is the seat's own loopback, and the only processes are those of the seat.
 */
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheRoot } from '../parts/parts.js'
import { projectRoot } from '../package.js'

export interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** Paths at a seat. `lab` itself is at the same path as on this host. */
export const inside = {
  cache: '/run/lab/cache',
  bin: '/run/lab/bin',
  home: (account: string) => `/home/${account}`,
}

/** Files that programs read in /etc. Users, groups and host names are the seat's own. */
const settings = [
  ...['alternatives', 'bash.bashrc', 'bash_completion.d', 'debian_version', 'inputrc', 'ld.so.cache'],
  ...['ld.so.conf', 'ld.so.conf.d', 'localtime', 'login.defs', 'magic', 'manpath.config', 'nsswitch.conf'],
  ...['os-release', 'pki', 'protocols', 'services', 'ssl', 'terminfo', 'timezone', 'vim'],
]

/**
 * Runs as root, as the first process of a seat's namespaces. `$1` an empty folder; `$2` the seat's home folder; `$3` the
 * cache; `$4` Node; `$5` the program's folder; `$6` account; `$7` uid; `$8` gid; `$9` a lab file, and `${10}` the
 * lab file that it replaces, or both empty; from `${11}`, other folders that the program needs. It writes its process
 * number on the host to file descriptor 3.
 */
const firstProcess = `
set -eu
umask 022
# The process number as the host counts, because /proc here is still the host's.
read -r pid _ < /proc/self/stat
root=$1 home=$2 cache=$3 node=$4 program=$5 account=$6 uid=$7 gid=$8 file=$9 place=\${10}
shift 10
hostname "seat-\${account##*-}"
ip link set lo up
mount -t tmpfs -o mode=755,nosuid,nodev,size=64m seat "$root"
lend() {
  if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root\${2%/*}"; [ -e "$root$2" ] || : > "$root$2"; fi
  mount --bind "$1" "$root$2"
  mount -o remount,bind,ro,nosuid,nodev "$root$2"
}
for dir in /usr /bin /sbin /lib /lib32 /lib64 /libx32 /nix; do
  if [ -L $dir ]; then ln -s "$(readlink $dir)" "$root$dir"; elif [ -d $dir ]; then lend $dir $dir; fi
done
mkdir "$root/etc"
for name in ${settings.join(' ')}; do
  [ ! -e "/etc/$name" ] || lend "$(readlink -f "/etc/$name")" "/etc/$name"
done
printf 'root:x:0:0:root:/:/usr/sbin/nologin\\n%s:x:%s:%s:%s:/home/%s:/bin/bash\\n' \\
  "$account" "$uid" "$gid" "$account" "$account" > "$root/etc/passwd"
printf 'root:x:0:\\ntty:x:5:\\n%s:x:%s:\\n' "$account" "$gid" > "$root/etc/group"
printf '127.0.0.1 localhost seat-%s\\n::1 localhost\\n' "\${account##*-}" > "$root/etc/hosts"
# Each folder in memory is a file system of its own, so that filling one leaves the root folder usable.
mkdir -p "$root/proc" "$root/dev/pts" "$root/dev/shm" "$root/dev/net" "$root/tmp" "$root/var/tmp" "$root/run/lab/bin"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for device in null zero full random urandom tty net/tun; do
  [ ! -e "/dev/$device" ] || { : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; }
done
# A new instance, which does not show the terminals of other seats.
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0/stdin 1/stdout 2/stderr; do ln -s "/proc/self/fd/\${number%/*}" "$root/dev/\${number#*/}"; done
for folder in /tmp /var/tmp; do mount -t tmpfs -o mode=1777,nosuid,nodev,size=256m tmp "$root$folder"; done
mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
lend "$cache" ${inside.cache}
lend "$(readlink -f "$node")" ${inside.bin}/node
for folder do lend "$folder" "$folder"; done
lend "$program" "$program"
[ -z "$file" ] || lend "$file" "$place"
printf '#!/bin/sh\\nexec ${inside.bin}/node "%s/dist/cli.js" "$@"\\n' "$program" > "$root${inside.bin}/lab"
chmod 755 "$root${inside.bin}/lab"
mkdir -p "$root/home/$account"
mount --bind "$home" "$root/home/$account"
mount -o remount,bind,nosuid,nodev "$root/home/$account"
mount -o remount,ro "$root"
cd "$root"
pivot_root . .
umount -l .
# Print the number last, because its reader expects everything to be in place.
echo "$pid" >&3
exec 3>&- > /dev/null 2>&1
# Processes that lose their parent become its children; wait collects them.
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
  sh -c 'trap : TERM HUP INT; while :; do sleep 3600 & wait; done'
`

/** The folder with the packages of `lab`: its own, or that of the project in which it is installed. */
const packagesFolder = async (): Promise<string> => {
  const [above = ''] = (await realpath(fileURLToPath(import.meta.resolve('commander')))).split(
    '/node_modules/',
  )
  return join(above, 'node_modules')
}

export interface Place {
  /** An empty folder. */
  readonly root: string
  readonly home: string
  readonly account: Account
  /** A lab file that replaces the shipped one of this lab. */
  readonly labFile: { readonly path: string; readonly lab: string } | undefined
}

/**
 * The command that opens a seat's namespaces, and stays. It writes its pid to file descriptor 3 when everything is
 * ready.
 */
export const openingCommand = async ({ root, home, account, labFile }: Place): Promise<readonly string[]> => {
  const program = await realpath(projectRoot)
  const packages = await packagesFolder()
  return [
    'unshare',
    ...['--mount', '--propagation', 'private', '--pid', '--net', '--ipc', '--uts', '--fork', '--'],
    ...['sh', '-c', firstProcess, 'seat', root, home, cacheRoot(), process.execPath, program],
    ...[account.name, String(account.uid), String(account.gid)],
    ...(labFile ? [labFile.path, join(program, 'labs', `${labFile.lab}.yaml`)] : ['', '']),
    ...(packages.startsWith(`${program}/`) ? [] : [packages]),
  ]
}
