/**
 * Snapshots: a whole lab at one moment, kept in its folder. A snapshot is complete or does not exist: it is written
 * under another name, and renamed when all of it is on disk.
 */
import { cp, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exitCodes, LabError } from './error.js'
import type { Context } from './context.js'
import { hang } from './fault/hang.js'
import type { LabId } from './identity.js'
import { noteUndo, readJournal, strike } from './journal.js'
import type { Lab } from './lab/lab.js'
import { shell } from './machine/sh.js'
import { groupOf, lacks, type Provider } from './provider/provider.js'
import { freeSpace, pathsOf, readIfThere, syncFolder, writePrivate } from './state.js'

/** The snapshot of a lab as its file says, which `lab up` takes. */
export const cleanName = 'clean'

/** The description of a snapshot; its file is written last. */
export interface Snapshot {
  readonly name: string
  /** ISO 8601. */
  readonly taken: string
  readonly machines: readonly string[]
  /** How the machines were kept from writing meanwhile. */
  readonly while: 'off' | 'paused'
  /** Size on disk, without holes. */
  readonly bytes: number
  /** Seconds during which no machine wrote: 0 for a lab that was off. */
  readonly pausedFor: number
}

const about = 'snapshot.json'

const folderOf = (lab: LabId): string => pathsOf(lab).snapshots

/** Exists while a lab is half restored. */
const markOf = (lab: LabId): string => pathsOf(lab).restoring

/** Files of the lab's folder that belong to the disks: the lab file as last applied, and the keys. */
const ownEntries = ['lab.yaml', 'lab.json', 'secrets.json', 'kubeconfig', 'manifests', 'rendered'] as const

/** Seconds for a machine to write its memory's data to disk. */
const syncDeadline = 30

const refuseName = (name: string): void => {
  if (/^[a-z0-9][a-z0-9-]{0,31}$/.test(name)) return
  throw new LabError(
    'bad-snapshot-name',
    `${JSON.stringify(name)} is not a valid name for a snapshot: use up to 32 of a-z, 0-9 and -`,
    { hint: 'lab snapshot LAB before-the-upgrade', exitCode: exitCodes.usage },
  )
}

const read = async (lab: LabId, name: string): Promise<Snapshot | undefined> => {
  const text = await readIfThere(join(folderOf(lab), name, about))
  return text === undefined ? undefined : (JSON.parse(text) as Snapshot)
}

/** Exists during an exercise: `lab up` then leaves the snapshot for a reset alone. */
export const exerciseMark = (lab: LabId): string => join(pathsOf(lab).learn, 'open')

export const hasSnapshot = async (lab: LabId, name: string): Promise<boolean> =>
  (await read(lab, name)) !== undefined

/** The snapshots of a lab, the oldest first. */
export const snapshotsOf = async (lab: LabId): Promise<readonly Snapshot[]> => {
  const names = await readdir(folderOf(lab)).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  })
  const found = await Promise.all(
    names.filter((name) => !name.startsWith('.')).map((name) => read(lab, name)),
  )
  return found.flatMap((one) => one ?? []).sort((a, b) => a.taken.localeCompare(b.taken))
}

const noSuch = async (lab: LabId, name: string): Promise<LabError> => {
  const there = (await snapshotsOf(lab)).map((one) => one.name)
  return new LabError('no-snapshot', `${lab.name} has no snapshot called ${name}`, {
    hint: there.length === 0 ? `lab snapshot ${lab.name} NAME` : `there are: ${there.join(', ')}`,
    exitCode: exitCodes.usage,
  })
}

/** @throws LabError if there is none of this name */
export const removeSnapshot = async (lab: LabId, name: string): Promise<void> => {
  refuseName(name)
  if (!(await read(lab, name))) throw await noSuch(lab, name)
  // Under another name first: an incomplete one must not look complete.
  const gone = join(folderOf(lab), `.${name}.old`)
  await rm(gone, { recursive: true, force: true })
  await rename(join(folderOf(lab), name), gone)
  await rm(gone, { recursive: true, force: true })
}

const gib = (bytes: number): string =>
  bytes < 1024 ** 3 ? `${(bytes / 1024 ** 2).toFixed(0)} MiB` : `${(bytes / 1024 ** 3).toFixed(1)} GiB`

export const sizeOf = ({ bytes }: Snapshot): string => gib(bytes)

/** A tenth more than the copy itself, because the lab also writes meanwhile. */
const refuseFull = async (lab: LabId, bytes: number): Promise<void> => {
  const { root } = pathsOf(lab)
  const free = await freeSpace(root)
  if (free > bytes * 1.1) return
  throw new LabError('no-space', `${root}: ${gib(free)} are free; the copy needs ${gib(bytes)}`, {
    hint: `lab snapshots ${lab.name}; remove one: lab snapshots ${lab.name} --remove NAME`,
    exitCode: exitCodes.host,
  })
}

/** @throws LabError if the lab is broken on purpose, or partly off */
const refuseUnlessWhole = async (lab: Lab, provider: Provider): Promise<'off' | 'running'> => {
  const faults = await readJournal(lab)
  if (faults.length > 0)
    throw new LabError(
      'fault-open',
      `${lab.name}: faults must be undone first: ${[...new Set(faults.map(({ fault, undo }) => `${fault} on ${undo.machine}`))].join(', ')}; a copy would keep the fault without its undo`,
      { hint: `lab heal ${lab.name}` },
    )
  const states = await provider.states(lab)
  const running = states.filter(({ status }) => status === 'running')
  if (running.length === 0) {
    const absent = states.filter(({ status }) => status === 'absent').map(({ name }) => name)
    if (absent.length === 0) return 'off'
    throw new LabError('not-made', `${lab.name}: never made: ${absent.join(', ')}`, {
      hint: `lab up ${lab.name}`,
    })
  }
  const off = states.filter(({ status, paused }) => status !== 'running' || paused === true)
  if (off.length > 0)
    throw new LabError(
      'partly-up',
      `${lab.name}: ${off.map(({ name, paused }) => `${name} is ${paused === true ? 'paused' : 'off'}`).join(', ')}: either all machines must run, or none`,
      { hint: `lab up ${lab.name}, or lab stop ${lab.name}` },
    )
  return 'running'
}

/**
 * Keeps the machines from writing while `copy` works: they write their memory's data to disk, and then all are paused.
 * In the copy, all machines seem to have lost their power at one moment, which their file systems and databases can
 * handle.
 * @returns the seconds for which they were paused
 */
const whilePaused = async (context: Context, copy: () => Promise<void>): Promise<number> => {
  const { lab, provider, signal } = context
  const pause = groupOf(provider, 'pause')
  const names = lab.machines.map(({ name }) => name)
  await Promise.all(
    names.map((name) => context.machine(name).run(shell`sync`, { signal, timeout: syncDeadline })),
  )
  const [resuming] = hang.undos
  const notes = await noteUndo(
    lab,
    `lab snapshot ${lab.name}`,
    'snapshot',
    names.map((name) => ({ do: resuming?.do ?? 'resume', machine: name })),
    'run',
  )
  const since = performance.now()
  try {
    await Promise.all(names.map((name) => pause.begin(lab, name)))
    await copy()
  } finally {
    const ended = await Promise.allSettled(names.map((name) => pause.end(lab, name)))
    for (const [index, note] of notes.entries())
      if (ended[index]?.status === 'fulfilled') await strike(lab, note)
  }
  return (performance.now() - since) / 1000
}

/**
 * Takes a snapshot of a lab that is off or running. The caller holds the lab's lock.
 * @param replace whether a snapshot of the same name may be replaced
 * @throws LabError if the provider cannot do it, a fault is active, or there is no space; then nothing has changed
 */
export const takeSnapshot = async (
  context: Context,
  name: string,
  { replace = false }: { readonly replace?: boolean } = {},
): Promise<Snapshot> => {
  const { lab, provider, signal } = context
  refuseName(name)
  const group = groupOf(provider, 'snapshots')
  if (!replace && (await read(lab, name)))
    throw new LabError('snapshot-exists', `${lab.name} already has a snapshot called ${name}`, {
      hint: `lab snapshot ${lab.name} ${name} --replace`,
      exitCode: exitCodes.usage,
    })
  const state = await refuseUnlessWhole(lab, provider)
  const why = state === 'running' ? lacks(provider, 'pause') : undefined
  if (why !== undefined)
    throw new LabError('not-offered', `${why}, so the lab must be off for a snapshot`, {
      hint: `lab stop ${lab.name}`,
      exitCode: exitCodes.host,
    })
  const bytes = await group.size(lab)
  await refuseFull(lab, bytes)
  const folder = folderOf(lab)
  const next = join(folder, `.${name}.new`)
  const disks = pathsOf(lab).snapshotDisks(`.${name}.new`)
  await rm(next, { recursive: true, force: true })
  await mkdir(disks, { recursive: true, mode: 0o700 })
  try {
    const copy = async (): Promise<void> => {
      await group.save(lab, disks)
      await copyEntries(pathsOf(lab).root, next)
    }
    let pausedFor = 0
    if (state === 'running') pausedFor = await whilePaused(context, copy)
    else await copy()
    signal.throwIfAborted()
    // Not while the machines are paused: writing everything to disk takes longer than copying it.
    await syncAll(disks)
    const snapshot: Snapshot = {
      name,
      taken: new Date().toISOString(),
      machines: lab.machines.map((machine) => machine.name),
      while: state === 'running' ? 'paused' : 'off',
      bytes,
      pausedFor: Math.round(pausedFor * 1000) / 1000,
    }
    await writePrivate(join(next, about), JSON.stringify(snapshot, null, 2))
    if (await stat(join(folder, name)).catch(() => undefined)) {
      const old = join(folder, `.${name}.old`)
      await rm(old, { recursive: true, force: true })
      await rename(join(folder, name), old)
      await rename(next, join(folder, name))
      await rm(old, { recursive: true, force: true })
    } else await rename(next, join(folder, name))
    await syncFolder(folder)
    return snapshot
  } catch (error) {
    await rm(next, { recursive: true, force: true })
    throw error
  }
}

const syncAll = async (folder: string): Promise<void> => {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = await open(join(entry.parentPath, entry.name), 'r')
    try {
      await file.sync()
    } finally {
      await file.close()
    }
  }
}

const copyEntries = async (from: string, into: string): Promise<void> => {
  for (const entry of ownEntries)
    if (await stat(join(from, entry)).catch(() => undefined))
      await cp(join(from, entry), join(into, entry), { recursive: true, preserveTimestamps: true })
}

/**
 * Whether the lab file is the one of this snapshot. Then a repaired lab keeps its snapshot: a reset should remove what
 * was done to the lab since.
 */
export const fits = async (lab: LabId, name: string): Promise<boolean> => {
  const { root } = pathsOf(lab)
  const own = join(folderOf(lab), name)
  if (!(await read(lab, name))) return false
  const text = async (folder: string): Promise<string> => {
    const entries = await readdir(join(folder, 'manifests'), { recursive: true, withFileTypes: true }).catch(
      () => [],
    )
    const files = entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
    const contents = await Promise.all(
      [join(folder, 'lab.yaml'), ...files].map((file) => readFile(file, 'utf8')),
    )
    return contents.join('\0')
  }
  return (await text(root)) === (await text(own))
}

/** @throws LabError if a restore was killed halfway: the disks are from two different moments */
export const refuseHalfRestored = async (lab: LabId): Promise<void> => {
  const name = await readIfThere(markOf(lab))
  if (name === undefined) return
  throw new LabError(
    'half-restored',
    `${lab.name}: the restore of ${name.trim()} was interrupted, and its disks are from two different moments`,
    { hint: `lab restore ${lab.name} ${name.trim()}` },
  )
}

/** @throws LabError if the provider has no snapshots, or there is none of this name */
export const refuseUnlessThere = async (lab: LabId, provider: Provider, name: string): Promise<void> => {
  refuseName(name)
  groupOf(provider, 'snapshots')
  if (!(await read(lab, name))) throw await noSuch(lab, name)
}

/**
 * Restores a lab that is off from a snapshot. Open entries of the journal are dropped, because their effects are gone
 * with the disks and the memory. The caller holds the lab's lock, and brings the lab up afterwards.
 */
export const putBack = async (lab: LabId, provider: Provider, name: string): Promise<Snapshot> => {
  refuseName(name)
  const group = groupOf(provider, 'snapshots')
  const snapshot = await read(lab, name)
  if (!snapshot) throw await noSuch(lab, name)
  const { root } = pathsOf(lab)
  const from = join(folderOf(lab), name)
  const next = join(folderOf(lab), '.restoring')
  await refuseFull(lab, snapshot.bytes)
  await rm(next, { recursive: true, force: true })
  try {
    await mkdir(next, { recursive: true, mode: 0o700 })
    await copyEntries(from, next)
    await writeFile(markOf(lab), `${name}\n`, { mode: 0o600 })
    await syncFolder(root)
    await group.load(lab, pathsOf(lab).snapshotDisks(name))
    for (const entry of ownEntries) {
      await rm(join(root, entry), { recursive: true, force: true })
      if (await stat(join(next, entry)).catch(() => undefined))
        await rename(join(next, entry), join(root, entry))
    }
    for (const entry of await readJournal(lab)) await strike(lab, entry)
    await rm(markOf(lab), { force: true })
    await syncFolder(root)
  } finally {
    await rm(next, { recursive: true, force: true })
  }
  return snapshot
}

/** A sentence for the list of snapshots. */
export const describe = (snapshot: Snapshot): string =>
  snapshot.while === 'off'
    ? 'taken while the lab was off'
    : `taken while the machines were paused for ${snapshot.pausedFor.toFixed(1)} s`
