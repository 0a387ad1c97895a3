import { type LabId, labOf, wordOf } from './identity.js'
import { randomBytes } from 'node:crypto'
import { open, readdir, readFile, rename, rm, statfs } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { exitCodes, LabError, systemError } from './error.js'
import { cannotWrite, makeFolder, type Place, refuseForeign, refuseForeignIn, unreadable } from './trust.js'

/**
 * An absolute folder of lab: from lab's own variable, else in the user's base folder, else in the home folder. An
 * empty variable counts as unset: lab deletes files in this folder, so it must never default to the current one.
 */
export const folderFrom = (own: string, base: string, ...inHome: readonly string[]): string => {
  const named = process.env[own]
  const given = process.env[base]
  const home = (): string => {
    try {
      return homedir()
    } catch (cause) {
      throw new LabError('no-home', 'your home folder is unknown: HOME is not set', {
        hint: `name the folder: ${own}=/srv/lab lab …`,
        exitCode: exitCodes.usage,
        cause,
      })
    }
  }
  try {
    if (named) return refuseUnfit(resolve(named), own)
  } catch (cause) {
    if (cause instanceof LabError) throw cause
    throw new LabError(
      'no-folder',
      `${own}=${named ?? ''}: the current folder, which this path is relative to, no longer exists`,
      {
        hint: 'cd',
        exitCode: exitCodes.usage,
        cause,
      },
    )
  }
  return refuseUnfit(join(given && isAbsolute(given) ? given : join(home(), ...inHome), 'lab'), own)
}

/**
 * Refuses characters that neither ssh_config nor a list of lines can hold: ssh expands `${x}` as a variable and has
 * no way to escape it.
 */
const refuseUnfit = (path: string, own: string): string => {
  if (/\p{Cc}|\$\{/u.test(path))
    throw new LabError(
      'bad-folder',
      `${own}: the folder has \${ or control characters in its path: ${JSON.stringify(path)}`,
      {
        hint: `use another one: ${own}=$HOME/.${own.toLowerCase().replace('_', '-')} lab …`,
        exitCode: exitCodes.usage,
      },
    )
  return path
}

/** Where running labs keep their files: LAB_STATE, else XDG_STATE_HOME/lab, else ~/.local/state/lab. */
export const stateRoot = (): string => folderFrom('LAB_STATE', 'XDG_STATE_HOME', '.local', 'state')

const place: Place = {
  variable: 'LAB_STATE',
  danger: 'lab acts on the files of a lab, and so would act on what somebody else wrote',
}

/** The labs that have a folder here, running or not, at any seat. */
export const madeLabs = async (): Promise<readonly LabId[]> => {
  const root = trustedRoot()
  const entries = await readdir(root, { withFileTypes: true }).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw unreadable(root, error, place)
  })
  return entries.flatMap((entry) => (entry.isDirectory() ? (labOf(entry.name) ?? []) : []))
}

const trustedRoot = (): string => {
  const root = stateRoot()
  refuseForeign(root, place, 'ours-or-root', 'folder')
  return root
}

/** Folders that were already checked: a command asks for the paths of its lab a hundred times. */
const trusted = new Set<string>()

/** The subfolders that hold instructions, checked recursively; `runs` holds only reports, and grows. */
const readDeeply = ['faults', 'fencing', 'ssh', 'rendered', 'manifests']

/** Files that a machine writes itself: they are data and belong to the user that the machine runs as. */
const ownOfMachine = /^machines\/[^/]+\/(root\.cow|seed\.tar|uml|lun-[^/]*\.raw)$/

/**
 * Checks the owner of everything in a lab's folder that acts as an instruction, before any of it is read. A lab
 * belongs only to the user who brought it up; root may use it only as that user.
 */
const refuseForeignLab = (root: string, lock: string): void => {
  if (trusted.has(root)) return
  refuseForeign(lock, place, 'ours')
  if (refuseForeign(root, place, 'ours', 'folder') === undefined) return
  refuseForeignIn(root, place, 'ours', {
    into: (path) => {
      const [first = '', second, third] = path.split('/')
      return (
        readDeeply.includes(first) || (first === 'machines' && (second === undefined || third === undefined))
      )
    },
    but: (path) => ownOfMachine.test(path),
  })
  trusted.add(root)
}

/** Every path of one lab. Observable state, such as which machines run, is never stored here. */
export interface LabPaths {
  readonly root: string
  /** The lab file as last applied, so that `down` works when the original is gone. */
  readonly source: string
  readonly kubeconfig: string
  readonly sshConfig: string
  readonly knownHosts: string
  readonly privateKey: string
  readonly secrets: string
  readonly runs: string
  /** The events of commands that changed the lab, as `--events` prints them; the rotated file is next to it. */
  readonly events: string
  /** Manifests as last applied to the cluster. */
  readonly rendered: string
  /** The undo journal. */
  readonly faults: string
  /** A copy of the lab file's folder of manifests. No name in a lab file can clash with it. */
  readonly manifests: string
  /** The fencing agent's state: its identity, its last observations, and the nodes it fenced. */
  readonly fencing: string
  /** Held by the command that changes the lab; it is outside the lab's folder, so that it outlives `down`. */
  readonly lock: string
  /** Held while a node is fenced and while its fence is undone; outside the folder like `lock`. */
  fenceLock(node: string): string
  /** Held by a program that uses the power switch of an existing machine. */
  switchLock(machine: string): string
  readonly machines: string
  machine(name: string): string
  /** Which existing machines the lab uses; missing if `lab` made its machines. */
  readonly hosts: string
  /** Which existing cluster the lab uses; missing if `lab` made the cluster. */
  readonly cluster: string
  /** What learners did: their progress and ledgers. It outlives a restore. */
  readonly learn: string
  /** The name of the provider that the lab was brought up with. */
  readonly provider: string
  /** The parsed lab file, for commands that have no time to parse it. */
  readonly parsed: string
  /** Exists while a snapshot is being restored. */
  readonly restoring: string
  /** Files of the provider uml: its supervisor's socket and log, the port of the API server, and its power switches. */
  readonly uml: {
    readonly socket: string
    readonly log: string
    readonly apiPort: string
    readonly redfish: string
  }
  /** Files of the providers of virtual machines: the lab's network for libvirt, and its interface for VirtualBox. */
  readonly vagrant: { readonly network: string; readonly hostOnly: string }
  /** Copies of the whole lab, one folder each. */
  readonly snapshots: string
  /** The disks in one of these copies, one folder per machine. */
  readonly snapshotDisks: (name: string) => string
}

/** Linux limits sun_path to 108 bytes; the longest socket name below the folder is `machines/<32>/uml/x/mconsole`. */
const longestRoot = 80

export const pathsOf = (lab: LabId): LabPaths => {
  const word = wordOf(lab)
  const root = join(stateRoot(), word)
  if (Buffer.byteLength(root) > longestRoot)
    throw new LabError('state-path-too-long', `${root}: too long for a folder that holds Unix sockets`, {
      // Not in /var/tmp, where files older than a month are removed.
      hint: 'set LAB_STATE to a shorter folder: LAB_STATE=$HOME/.lab lab …',
      exitCode: exitCodes.usage,
    })
  const lock = join(stateRoot(), `.${word}.lock`)
  refuseForeignLab(root, lock)
  return {
    root,
    source: join(root, 'lab.yaml'),
    kubeconfig: join(root, 'kubeconfig'),
    sshConfig: join(root, 'ssh_config'),
    knownHosts: join(root, 'ssh', 'known_hosts'),
    privateKey: join(root, 'ssh', 'id_ed25519'),
    secrets: join(root, 'secrets.json'),
    runs: join(root, 'runs'),
    events: join(root, 'events.ndjson'),
    rendered: join(root, 'rendered'),
    faults: join(root, 'faults'),
    manifests: join(root, 'manifests'),
    fencing: join(root, 'fencing'),
    lock,
    fenceLock: (node) => join(dirname(lock), `.${word}.fence-${node}.lock`),
    switchLock: (machine) => join(root, `.switch-${machine}.lock`),
    machines: join(root, 'machines'),
    machine: (machine) => join(root, 'machines', machine),
    hosts: join(root, 'hosts.json'),
    cluster: join(root, 'cluster.json'),
    learn: join(root, 'learn'),
    provider: join(root, 'provider'),
    parsed: join(root, 'lab.json'),
    restoring: join(root, 'restoring'),
    uml: {
      socket: join(root, 'supervisor.sock'),
      log: join(root, 'supervisor.log'),
      apiPort: join(root, 'api-port'),
      redfish: join(root, 'redfish.json'),
    },
    vagrant: { network: join(root, 'network.xml'), hostOnly: join(root, 'host-only') },
    snapshots: join(root, 'snapshots'),
    snapshotDisks: (name) => join(root, 'snapshots', name, 'disks'),
  }
}

/** Free bytes in the file system of this folder. */
export const freeSpace = async (folder: string): Promise<number> => {
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize
}

/** Undefined if there is no such file. A file that cannot be read is an error. */
export const readIfThere = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    // The error of a folder in its place does not name it.
    throw systemError(error, path) ?? error
  })

/** A value parsed from JSON: for all that is known of a damaged file, any of its fields may be missing or wrong. */
export type Doubtful<T> = Readonly<Partial<Record<keyof T, unknown>>>

/**
 * A record that lab keeps as JSON; undefined if there is none.
 * @param says what it should say, after its path
 * @param isWhole whether an object has every field that its readers rely on: valid JSON may be a damaged record, too
 * @param hint what to type to get out of it
 * @throws LabError `bad-state` if it is damaged
 */
export const recordIfThere = async <T>(
  path: string,
  says: string,
  isWhole: (record: Doubtful<T>) => boolean,
  hint: string,
): Promise<T | undefined> => {
  const text = await readIfThere(path)
  if (text === undefined) return undefined
  const damaged = (cause?: unknown): LabError =>
    new LabError('bad-state', `${path} should say ${says}, but does not`, { hint, log: path, cause })
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw damaged(cause)
  }
  if (typeof value !== 'object' || value === null || !isWhole(value as Doubtful<T>)) throw damaged()
  return value as T
}

let written = 0

/** Writes a file as a whole, readable only by its owner. Several writers may run at once: the last one wins. */
export const writePrivate = async (path: string, content: string | Buffer): Promise<void> => {
  await makeFolder(dirname(path))
  // Not `path` with a suffix: a name of 255 bytes leaves no room for one.
  const next = join(dirname(path), `.${String(process.pid)}-${String(written++)}.new`)
  try {
    // `wx`: a file that already has this name is not ours, and a link would lead elsewhere.
    const handle = await open(next, 'wx', 0o600)
    try {
      await handle.writeFile(content)
      // Before the rename: after a power cut, the file has its old or its new content and is never empty.
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(next, path)
  } catch (error) {
    await rm(next, { force: true }).catch(() => undefined)
    throw cannotWrite(dirname(path), error)
  }
  await syncFolder(dirname(path))
}

/** Makes sure that files created, renamed or removed in a folder stay so after a power cut. */
export const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** The secrets that lab generated for itself. */
export interface LabSecrets {
  /** A kubeadm bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`. */
  readonly bootstrapToken: string
  /** What clusters of two target machines derive their keys from: 64 hexadecimal digits. */
  readonly clusterKey: string
}

/** The secrets in a file; undefined for invalid content, as after a power cut. */
const secretsIn = (text: string): LabSecrets | undefined => {
  try {
    const { bootstrapToken, clusterKey } = JSON.parse(text) as Doubtful<LabSecrets>
    const isToken = typeof bootstrapToken === 'string' && /^[a-z0-9]{6}\.[a-z0-9]{16}$/.test(bootstrapToken)
    if (!isToken) return undefined
    // A lab of an earlier version has no key, and no cluster that would need the same one.
    if (clusterKey === undefined) return { bootstrapToken, clusterKey: randomBytes(32).toString('hex') }
    return typeof clusterKey === 'string' && /^[a-f0-9]{64}$/.test(clusterKey)
      ? { bootstrapToken, clusterKey }
      : undefined
  } catch {
    return undefined
  }
}

/** The stored secrets; undefined if there are none yet. */
export const keptSecrets = async (paths: LabPaths): Promise<LabSecrets | undefined> => {
  const text = await readIfThere(paths.secrets)
  return text === undefined ? undefined : secretsIn(text)
}

/** The stored secrets, or else new ones. */
export const secretsOf = async (paths: LabPaths): Promise<LabSecrets> => {
  const kept = await keptSecrets(paths)
  if (kept) return kept
  const letters = randomBytes(11).toString('hex')
  return {
    bootstrapToken: `${letters.slice(0, 6)}.${letters.slice(6, 22)}`,
    clusterKey: randomBytes(32).toString('hex'),
  }
}

/**
 * Stores the secrets, so that they stay the same. Read-only commands do not call this, since they leave nothing
 * behind.
 */
export const keepSecrets = async (paths: LabPaths): Promise<void> =>
  writePrivate(paths.secrets, JSON.stringify(await secretsOf(paths), null, 2))

export const removeState = (paths: LabPaths): Promise<void> =>
  rm(paths.root, { recursive: true, force: true })
