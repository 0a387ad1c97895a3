/**
 * The confinement of a machine: its kernel is a program that runs untrusted code, and gets no more access than it
 * needs. Its processes run as a user that the host does not have, in a user namespace without any capability, in
 * their own PID, mount and IPC namespaces, with `no_new_privs`, in a root folder that contains only its kernel and
 * its disks. Standard library only: the supervisor uses it.
 */
import { readFileSync } from 'node:fs'

/** A file of the host, and its path inside the machine's root folder: `/base`. */
export interface Bind {
  readonly from: string
  readonly to: string
  readonly writable?: boolean
}

export interface Confinement {
  /**
   * User and group id of the machine's processes on the host. Absent: the user of `lab`, who has no other id to give.
   */
  readonly user?: number
  readonly binds: readonly Bind[]
  /** An empty folder in which its root folder is assembled. */
  readonly root: string
  /** A network namespace of its own with one end of the bridge's cable, for a host without usable tap devices. */
  readonly cable?: string
}

/**
 * Nobody uses these user ids according to systemd's list: they are above all containers, and below the ids that some
 * programs treat as negative.
 */
const unused = { first: 1_879_048_192, count: 2 ** 27 }

/** Lines of `inside outside count`, as in /proc/self/uid_map. */
const mapped = (map: string): readonly { first: number; count: number }[] =>
  map
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([first = 0, , count = 0]) => ({ first, count }))

/**
 * An unused user id for a machine, the same each time. A container with fewer ids uses one from the upper half of its
 * own. Undefined: there is none but our own.
 *
 * @param place selects one: a whole number
 * @param taken ids of the host's users
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

/** The ids of the users and groups in a text like /etc/passwd. */
export const listedNumbers = (text: string): readonly number[] =>
  text
    .split('\n')
    .map((line) => Number(line.split(':')[2]))
    .filter((number) => Number.isInteger(number))

/** A user id that this process may give to a machine. */
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
 * The first process of the machine's PID namespace. It has the supervisor's privileges and assembles the root folder.
 * The tools for the last steps are in it meanwhile; a helper removes them and the host's root before the machine's
 * kernel runs. `$1`: root folder; `$2`: the script that then runs inside; from `$3`: binds.
 */
const outside = `
set -eu
umask 022
root=$1 inside=$2
shift 2
machine=$root/machine
mount -t tmpfs -o mode=755 machine "$root"
mkdir -p "$machine/dev/shm" "$machine/proc" "$machine/run" "$root/old"
# A machine's memory is a file that its kernel maps and executes, so this file system must allow execution.
mount -t tmpfs -o mode=1777,size=100% memory "$machine/dev/shm"
cat /proc/cpuinfo > "$machine/proc/cpuinfo"
while [ $# -gt 0 ]; do
  mkdir -p "$machine\${3%/*}"
  : > "$machine$3"
  mount --bind "$2" "$machine$3"
  # If the host's file system is nosuid and nodev, a user may not remount it without these options.
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
# The process number as the host counts, because /proc here is still the host's.
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
  # pivot_root fails on a host whose root is its initial RAM disk. There, changing the root folder has to suffice.
  pivot_root . old 2>/dev/null || exit 0
  cd /
  umount -l /old
} &
set -- setpriv --no-new-privs
# A host may forbid user namespaces to users without this capability. The next command drops it.
[ -z "$MACHINE_USER" ] || set -- "$@" --reuid "$MACHINE_USER" --regid "$MACHINE_USER" --clear-groups \\
  --inh-caps=+sys_admin --ambient-caps=+sys_admin
set -- "$@" unshare --user --map-user=65534 --map-group=65534
# The user is not root in the namespace, so exec drops all capabilities. A machine with a cable keeps net_raw.
[ -z "$MACHINE_CABLE" ] || set -- "$@" --net --keep-caps
set -- "$@" --root="$machine"
[ -z "$MACHINE_CABLE" ] || set -- "$@" setpriv --bounding-set=-all,+net_raw --inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw
# With address randomization, User-Mode Linux would start itself again through /proc, which is not there.
exec setarch "$(uname -m)" --addr-no-randomize "$@" sh -c "$inside"
`

/**
 * The first process stays a shell: a kernel that panics aborts, and a signal to itself would not reach the first
 * process of a namespace. The shell's own messages, such as `Killed`, are kept out of the machine's console. The
 * arguments are words without spaces and are passed in the environment, so that the outer processes are not mistaken
 * for the machine.
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

/** The confined command for `argv`, a program in the machine's root folder, with its environment. */
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
