/**
 * How a machine is confined: its kernel is a program that runs what somebody else wrote, and gets no more than it
 * needs. Its processes run as a user that the host does not have, in a user namespace without any capability, in
 * PID, mount and IPC namespaces of their own, with `no_new_privs`, below a root folder that has its kernel, its disks
 * and nothing else. Standard library only: the supervisor uses it.
 */
import { readFileSync } from 'node:fs'

/** A file of the host that the machine sees, and where: `/base`. */
export interface Bind {
  readonly from: string
  readonly to: string
  readonly writable?: boolean
}

export interface Confinement {
  /** User and group of the machine's processes, on the host. Absent: whoever runs `lab`, who has no other to give. */
  readonly user?: number
  readonly binds: readonly Bind[]
  /** An empty folder, in which its root folder is put together. */
  readonly root: string
  /** A network namespace of its own, which the bridge's cable leads into: for who cannot be given a tap device. */
  readonly cable?: string
}

/** systemd's list of user numbers has nobody here: above all containers, below the numbers that are negative somewhere. */
const unused = { first: 1_879_048_192, count: 2 ** 27 }

/** `inside outside count` a line, as in /proc/self/uid_map. */
const mapped = (map: string): readonly { first: number; count: number }[] =>
  map
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([first = 0, , count = 0]) => ({ first, count }))

/**
 * A user number for a machine, the same each time, of those that nobody has. In a container that has fewer numbers, one
 * of the upper half of those it has. Undefined: there is none but our own.
 *
 * @param place picks one: a whole number
 * @param taken numbers of the host's users
 */
export const userNumber = (map: string, place: number, taken: ReadonlySet<number>): number | undefined => {
  const ranges = mapped(map)
  const whole = ranges.some(
    ({ first, count }) => first <= unused.first && first + count >= unused.first + unused.count,
  )
  const last = ranges.at(-1) ?? { first: 0, count: 0 }
  const half = Math.floor(last.count / 2)
  const { first, count } = whole ? unused : { first: last.first + last.count - half, count: half }
  for (let tries = 0; tries < Math.min(count, 1000); tries++) {
    const number = first + ((place + tries) % count)
    if (number > 0 && !taken.has(number)) return number
  }
  return undefined
}

/** The numbers of the users and groups that a text like /etc/passwd lists. */
export const listedNumbers = (text: string): readonly number[] =>
  text
    .split('\n')
    .map((line) => Number(line.split(':')[2]))
    .filter((number) => Number.isInteger(number))

/** As this process may give it. */
export const machineUser = (place: number): number | undefined => {
  const read = (path: string): string => {
    try {
      return readFileSync(path, 'utf8')
    } catch {
      return ''
    }
  }
  const taken = new Set(['/etc/passwd', '/etc/group'].flatMap((path) => listedNumbers(read(path))))
  return process.getuid?.() === 0 ? userNumber(read('/proc/self/uid_map'), place, taken) : undefined
}

/**
 * Runs as the first process of the machine's PID namespace, with the supervisor's powers, and puts the root folder
 * together. The tools that the last steps need are in it meanwhile; a helper takes them out again, and the host's
 * root with them, before the machine's kernel runs. `$1`: root; `$2`: what then runs inside; from `$3` on: binds.
 */
const outside = `
set -eu
umask 022
root=$1 inside=$2
shift 2
machine=$root/machine
mount -t tmpfs -o mode=755 machine "$root"
mkdir -p "$machine/dev/shm" "$machine/proc" "$machine/run" "$root/old"
# A machine's memory is a file that its kernel maps and executes.
mount -t tmpfs -o mode=1777,size=100% memory "$machine/dev/shm"
cat /proc/cpuinfo > "$machine/proc/cpuinfo"
while [ $# -gt 0 ]; do
  mkdir -p "$machine\${3%/*}"
  : > "$machine$3"
  mount --bind "$2" "$machine$3"
  # Where the host's file system is nosuid and nodev, a user may not take that away.
  [ "$1" = rw ] || mount -o remount,bind,ro "$machine$3" 2>/dev/null ||
    mount -o remount,bind,ro,nosuid,nodev "$machine$3" 2>/dev/null || :
  shift 3
done
tools=
for dir in /usr /bin /sbin /lib /lib32 /lib64 /libx32 /nix; do
  if [ -L $dir ]; then ln -s "$(readlink $dir)" "$machine$dir"
  elif [ -d $dir ]; then mkdir "$machine$dir"; mount --rbind $dir "$machine$dir"
  else continue
  fi
  ln -s old$dir "$root$dir"
  tools="$tools $dir"
done
ln -s old/proc "$root/proc"
[ -z "$MACHINE_USER" ] || chown "$MACHINE_USER:$MACHINE_USER" "$machine/run"
mkfifo "$root/ready" "$root/go"
exec 8<>"$root/ready" 9<>"$root/go"
# As the host's /proc, which is the one there is here, counts.
read -r pid _ < /proc/self/stat
{
  trap 'echo >&9' EXIT
  read -r _ <&8
  if [ -n "$MACHINE_CABLE" ]; then
    ip link set "$MACHINE_CABLE" netns "/proc/$pid/ns/net"
    nsenter --net="/proc/$pid/ns/net" ip link set "$MACHINE_CABLE" up
  fi
  cd "$machine"
  for dir in $tools; do
    if [ -L ".$dir" ]; then rm ".$dir"; else umount -l ".$dir"; rmdir ".$dir"; fi
  done
  cd ..
  # A host whose root is its initial RAM disk cannot: there the root folder alone must do.
  pivot_root . old 2>/dev/null || exit 0
  cd /
  umount -l /old
} &
set -- setpriv --no-new-privs
# A host may keep user namespaces from those without this capability. It ends with the step after.
[ -z "$MACHINE_USER" ] || set -- "$@" --reuid "$MACHINE_USER" --regid "$MACHINE_USER" --clear-groups \\
  --inh-caps=+sys_admin --ambient-caps=+sys_admin
set -- "$@" unshare --user --map-user=65534 --map-group=65534
# To be root there is not needed, so that exec takes all capabilities; but for this one, where there is no tap.
[ -z "$MACHINE_CABLE" ] || set -- "$@" --net --keep-caps
set -- "$@" --root="$machine"
[ -z "$MACHINE_CABLE" ] || set -- "$@" setpriv --bounding-set=-all,+net_raw --inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw
# Else its kernel would look for itself in /proc, to start again without.
exec setarch "$(uname -m)" --addr-no-randomize "$@" sh -c "$inside"
`

/**
 * The first process stays a shell: a kernel that panics aborts, and the signal of that would pass the first process
 * by. What the shell itself has to say, `Killed`, is not the machine's console. The arguments are words without
 * spaces, and in the environment, so that the processes outside do not look like the machine.
 */
const inside = `
echo >&8
read -r _ <&9
exec 8>&- 9>&- 3>&2 2>/dev/null
argv=$MACHINE_ARGV
unset MACHINE_ARGV MACHINE_USER MACHINE_CABLE
set -f
$argv 2>&3 3>&-
exit $?
`

/** A command that runs `argv`, a program of the machine's root folder, confined; and its environment. */
export const confined = (
  argv: readonly string[],
  { user, binds, root, cable }: Confinement,
): { readonly command: readonly string[]; readonly env: Readonly<Record<string, string>> } => ({
  command: [
    'unshare',
    ...[
      '--mount',
      '--pid',
      '--ipc',
      '--uts',
      '--fork',
      '--kill-child=SIGKILL',
      '--',
      'sh',
      '-c',
      outside,
      'lab',
    ],
    root,
    inside,
    ...binds.flatMap(({ from, to, writable }) => [writable ? 'rw' : 'ro', from, to]),
  ],
  env: {
    PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    MACHINE_ARGV: argv.join(' '),
    MACHINE_USER: user === undefined ? '' : String(user),
    MACHINE_CABLE: cable ?? '',
  },
})
