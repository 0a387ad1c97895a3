import { execa } from 'execa'
import { Interrupted } from '../error.js'

/**
 * Building takes root's rights, or those of a root whom nobody outside believes: in a user namespace of
 * one's own every number is mapped to one of the ranges in /etc/subuid.
 */
const isRoot = (): boolean => process.getuid?.() === 0

/**
 * Where the kernel shares the processors between sessions (sched_autogroup), niceness counts within one only: a session
 * of its own, which a command gets, has to be made as nice. An older kernel has no such file.
 */
const asNiceASession =
  'if [ "$(nice)" -gt 0 ] && [ -w /proc/self/autogroup ]; then nice > /proc/self/autogroup; fi'

/** What making a root directory or a disk never needs of root's powers: those over the host itself. */
const neverNeeded = [
  ...['sys_module', 'sys_rawio', 'sys_boot', 'sys_time', 'sys_pacct', 'sys_tty_config', 'syslog'],
  ...['net_admin', 'net_raw', 'mac_admin', 'mac_override', 'audit_control', 'linux_immutable'],
  ...['wake_alarm', 'block_suspend'],
]

/**
 * Mounts and processes live in namespaces of the command's own. When its first process ends, however it
 * ends, the kernel kills the others and drops the mounts; and it ends when we do, even by `kill -9`.
 */
const sandbox = (niceness: number, network: boolean): readonly string[] => [
  'setpriv',
  '--pdeathsig=KILL',
  'unshare',
  ...(isRoot() ? [] : ['--user', '--map-root-user', '--map-auto']),
  '--mount',
  '--pid',
  '--ipc',
  '--uts',
  ...(network ? [] : ['--net']),
  '--fork',
  '--kill-child=KILL',
  '--mount-proc',
  'setpriv',
  `--bounding-set=${neverNeeded.map((capability) => `-${capability}`).join(',')}`,
  'nice',
  '-n',
  String(niceness),
  // One pipe for both outputs: an error stands on a line of its own, behind what led to it.
  'sh',
  '-c',
  `${asNiceASession}; exec "$@" 2>&1`,
  'sh',
]

/**
 * Who compiles and fetches: a user whom nobody else is, neither on a Debian nor among those of a user namespace, so that
 * no file of the host is theirs.
 */
export const builderUser = 65530

/** Words before a command, inside a root directory: it has no rights then, and can get none. */
export const powerless: readonly string[] = [
  'setpriv',
  `--reuid=${String(builderUser)}`,
  `--regid=${String(builderUser)}`,
  '--clear-groups',
  '--inh-caps=-all',
  '--ambient-caps=-all',
  '--bounding-set=-all',
  '--no-new-privs',
  '--',
]

/**
 * Runs a command with folders that are the powerless user's meanwhile. The first, of which files are taken, is root's
 * again afterwards, so that nobody else can change them. Shared memory is the command's own.
 */
const lending = `
set -eu
user=${String(builderUser)} out=$1
while [ "$1" != -- ]; do
  find "$1" -xdev ! -user $user -exec chown --no-dereference $user:$user {} +
  shift
done
shift
[ ! -d /dev/shm ] || mount -t tmpfs -o mode=1777 tmpfs /dev/shm
"$@" && code=0 || code=$?
chown --recursive --no-dereference 0:0 "$out"
chmod --recursive go-w "$out"
exit $code
`

/** Words before a command that runs another one `powerless`. @param writable folders, first the one with the result */
export const lend = (writable: readonly [string, ...string[]]): readonly string[] => [
  ...['sh', '-c', lending, 'sh'],
  ...writable,
  '--',
]

/** Variables that name who gets through to the web for us. */
export const proxies = ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY']

/** Passed on from the host: how the network is reached. */
const passedOn = [
  ...proxies,
  'ftp_proxy',
  'no_proxy',
  'NO_PROXY',
  'GOPROXY',
  'GOPRIVATE',
  'GONOPROXY',
  'GONOSUMDB',
  'GONOSUMCHECK',
  'GOSUMDB',
  'GOINSECURE',
  'GOFLAGS',
]

export interface SandboxOptions {
  readonly signal: AbortSignal
  readonly environment?: Readonly<Record<string, string>> | undefined
  /** Added to our own, 0 to 19: whoever is nicer gets what others leave of the processors. */
  readonly niceness?: number | undefined
  /** Whether it has the host's network; default: yes. Otherwise it has none. */
  readonly network?: boolean | undefined
  /** Every line of its output, as it comes. */
  readonly onLine?: ((line: string) => void) | undefined
}

/** How a command ended that did not end well. */
export interface Ending {
  readonly exitCode: number | undefined
  readonly signal: string | undefined
  /** The last lines of its output, oldest first. */
  readonly tail: readonly string[]
}

const tailLength = 60

/**
 * Runs a command in a sandbox. When `signal` fires, it and all it started are killed.
 * @returns undefined when it ended with exit code 0.
 * @throws Interrupted when `signal` fired.
 */
export const runInSandbox = async (
  command: readonly string[],
  { signal, environment, niceness = 0, network = true, onLine }: SandboxOptions,
): Promise<Ending | undefined> => {
  signal.throwIfAborted()
  const [program, ...before] = sandbox(niceness, network) as [string, ...string[]]
  const env: Record<string, string> = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    LANG: 'C.UTF-8',
    DEBIAN_FRONTEND: 'noninteractive',
  }
  for (const name of passedOn) if (process.env[name] !== undefined) env[name] = process.env[name]
  const child = execa(program, [...before, ...command], {
    stdin: 'ignore',
    all: true,
    buffer: false,
    reject: false,
    extendEnv: false,
    env: { ...env, ...environment },
    // In a session of its own: Ctrl-C reaches us, and we end it when we are ready.
    detached: true,
  })
  // The whole group: in its first moments the child of unshare does not yet end with unshare.
  const kill = (): void => {
    if (child.pid === undefined || child.exitCode !== null) return
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It ended by itself just now.
    }
  }
  signal.addEventListener('abort', kill)
  const tail: string[] = []
  for await (const text of child.iterable({ from: 'all' })) {
    const line = text.split('\r').at(-1)?.trimEnd() ?? ''
    tail.push(line)
    if (tail.length > tailLength) tail.shift()
    onLine?.(line)
  }
  const result = await child
  signal.removeEventListener('abort', kill)
  if (signal.aborted) throw new Interrupted()
  if (result.exitCode === 0) return undefined
  if (result.exitCode === undefined && result.signal === undefined) tail.push(result.originalMessage ?? '')
  return { exitCode: result.exitCode, signal: result.signal, tail }
}

/** Removes a directory with all that is in it, also where files belong to mapped users. */
export const removeTree = async (path: string): Promise<void> => {
  const inNamespace = isRoot() ? [] : ['unshare', '--user', '--map-root-user', '--map-auto']
  await execa('env', [...inNamespace, 'rm', '-rf', '--one-file-system', '--', path])
}
