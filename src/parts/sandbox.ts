import { execa } from 'execa'
import { Interrupted } from '../error.js'

/**
 * Building requires root, or a root with no privileges outside: a user namespace maps its ids to a range of
 * /etc/subuid.
 */
const isRoot = (): boolean => process.getuid?.() === 0

/**
 * Where the kernel divides the processors between sessions (sched_autogroup), niceness counts only within a session.
 * A command gets a session of its own, which is made equally nice. Older kernels lack this file.
 */
const asNiceASession =
  'if [ "$(nice)" -gt 0 ] && [ -w /proc/self/autogroup ]; then nice > /proc/self/autogroup; fi'

/** Capabilities over the host itself, which making a root directory or a disk never needs. */
const neverNeeded = [
  ...['sys_module', 'sys_rawio', 'sys_boot', 'sys_time', 'sys_pacct', 'sys_tty_config', 'syslog'],
  ...['net_admin', 'net_raw', 'mac_admin', 'mac_override', 'audit_control', 'linux_immutable'],
  ...['wake_alarm', 'block_suspend'],
]

/**
 * The mounts and processes of a command are in its own namespaces. When its first process ends, for whatever reason,
 * the kernel kills the others and drops the mounts; and it ends when we end, even by `kill -9`.
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
  // One pipe for both outputs: an error is on a line of its own, after the output that led to it.
  'sh',
  '-c',
  `${asNiceASession}; exec "$@" 2>&1`,
  'sh',
]

/**
 * The user id of compilers and downloads: unused on Debian and in user namespaces, so that no file of the host
 * belongs to it.
 */
export const builderUser = 65530

/** A command prefix inside a root directory that drops all privileges for good. */
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
 * Runs a command with folders that belong to the unprivileged user meanwhile. The first one, which holds the result,
 * is given back to root afterwards, so that nobody else can change it. Shared memory is private to the command.
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

/**
 * A command prefix that runs another command `powerless`.
 * @param writable folders, the one with the result first
 */
export const lend = (writable: readonly [string, ...string[]]): readonly string[] => [
  ...['sh', '-c', lending, 'sh'],
  ...writable,
  '--',
]

/** The variables that name proxies. */
export const proxies = ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY']

/** Passed on from the host: its network settings. */
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
  /** Added to our own niceness, 0 to 19: a nicer process gets only idle processor time. */
  readonly niceness?: number | undefined
  /** Whether it has the host's network; default: yes. Otherwise it has none. */
  readonly network?: boolean | undefined
  /** Called with every line of output as it arrives. */
  readonly onLine?: ((line: string) => void) | undefined
}

/** How a command failed. */
export interface Ending {
  readonly exitCode: number | undefined
  readonly signal: string | undefined
  /** The last lines of its output, oldest first. */
  readonly tail: readonly string[]
}

const tailLength = 60

/**
 * Runs a command in a sandbox. When `signal` fires, the command and everything it started are killed.
 * @returns undefined for exit code 0
 * @throws Interrupted when `signal` fired
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
    // In a session of its own: Ctrl-C reaches only us, and we end the command when we are ready.
    detached: true,
  })
  // The whole group: in its first moments, the child of unshare does not yet end together with unshare.
  const kill = (): void => {
    if (child.pid === undefined || child.exitCode !== null) return
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has just ended on its own.
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

/** Removes a folder with its content, even if files belong to mapped users. */
export const removeTree = async (path: string): Promise<void> => {
  const inNamespace = isRoot() ? [] : ['unshare', '--user', '--map-root-user', '--map-auto']
  await execa('env', [...inNamespace, 'rm', '-rf', '--one-file-system', '--', path])
}
