import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { exitCodes, LabError } from './error.js'

/**
 * A folder of ours, absolute: ours by name, else in the user's base folder, else in the home folder. An empty
 * variable counts as none: what is in there gets removed, and must never be the current folder.
 */
export const folderFrom = (own: string, base: string, ...inHome: readonly string[]): string => {
  const named = process.env[own]
  if (named) return resolve(named)
  const given = process.env[base]
  return join(given && isAbsolute(given) ? given : join(homedir(), ...inHome), 'lab')
}

/** Where running labs keep what is theirs: LAB_STATE, else XDG_STATE_HOME/lab, else ~/.local/state/lab. */
export const stateRoot = (): string => folderFrom('LAB_STATE', 'XDG_STATE_HOME', '.local', 'state')

/** Names of the labs that have a folder here, up or not. */
export const madeLabs = async (): Promise<readonly string[]> =>
  (await readdir(stateRoot(), { withFileTypes: true }).catch(() => []))
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)

/** Every path of one lab. What the world can tell (which machines run) is never kept here. */
export interface LabPaths {
  readonly root: string
  /** The lab file as it was last applied, so that `down` works when the file is gone. */
  readonly source: string
  readonly kubeconfig: string
  readonly sshConfig: string
  readonly knownHosts: string
  readonly privateKey: string
  readonly secrets: string
  readonly runs: string
  /** Manifests as they were last given to the cluster. */
  readonly rendered: string
  /** The journal of what is to be undone. */
  readonly faults: string
  /** What the fencing agent keeps: who it is, what it saw last, whom it fenced. */
  readonly fencing: string
  /** Held by the command that changes the lab; beside its folder, so that it outlives `down`. */
  readonly lock: string
  /** Held while a node is fenced, and while its fence is undone; beside the folder like `lock`. */
  fenceLock(node: string): string
  machine(name: string): string
}

/** Linux: sun_path has 108 bytes; the longest socket name below the folder is `machines/<32>/uml/x/mconsole`. */
const longestRoot = 80

export const pathsOf = (name: string): LabPaths => {
  const root = join(stateRoot(), name)
  if (Buffer.byteLength(root) > longestRoot)
    throw new LabError('state-path-too-long', `${root}: too long for a folder that holds Unix sockets`, {
      hint: 'set LAB_STATE to a shorter folder: LAB_STATE=/var/tmp/lab lab …',
      exitCode: exitCodes.usage,
    })
  return {
    root,
    source: join(root, 'lab.yaml'),
    kubeconfig: join(root, 'kubeconfig'),
    sshConfig: join(root, 'ssh_config'),
    knownHosts: join(root, 'ssh', 'known_hosts'),
    privateKey: join(root, 'ssh', 'id_ed25519'),
    secrets: join(root, 'secrets.json'),
    runs: join(root, 'runs'),
    rendered: join(root, 'rendered'),
    faults: join(root, 'faults'),
    fencing: join(root, 'fencing'),
    lock: join(stateRoot(), `.${name}.lock`),
    fenceLock: (node) => join(stateRoot(), `.${name}.fence-${node}.lock`),
    machine: (machine) => join(root, 'machines', machine),
  }
}

let written = 0

/** Writes a file as a whole, readable by its owner alone. Several may write the same one at once: the last one counts. */
export const writePrivate = async (path: string, content: string | Buffer): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const next = `${path}.${String(process.pid)}-${String(written++)}.new`
  try {
    await writeFile(next, content, { mode: 0o600 })
    await rename(next, path)
  } catch (error) {
    await rm(next, { force: true })
    throw error
  }
}

/** What was made, renamed or removed in a folder stays so after a power cut, once this returns. */
export const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** What the lab made up for itself. */
export interface LabSecrets {
  /** A kubeadm bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`. */
  readonly bootstrapToken: string
}

/** Those that are kept, else new ones. */
export const secretsOf = async (paths: LabPaths): Promise<LabSecrets> => {
  const kept = await readFile(paths.secrets, 'utf8').catch(() => undefined)
  if (kept !== undefined) return JSON.parse(kept) as LabSecrets
  const letters = randomBytes(11).toString('hex')
  return { bootstrapToken: `${letters.slice(0, 6)}.${letters.slice(6, 22)}` }
}

/** From now on they stay the same. Not for commands that only look: they leave nothing behind. */
export const keepSecrets = async (paths: LabPaths): Promise<void> =>
  writePrivate(paths.secrets, JSON.stringify(await secretsOf(paths), null, 2))

export const removeState = (paths: LabPaths): Promise<void> =>
  rm(paths.root, { recursive: true, force: true })

/** 12 hexadecimal digits of SHA-256. */
export const shortHash = (content: string | Buffer): string =>
  createHash('sha256').update(content).digest('hex').slice(0, 12)
