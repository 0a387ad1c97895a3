/**
 * Snapshots: a whole lab at one moment, kept in its folder. A snapshot is complete or does not exist: it is written
 * under another name, and renamed when all of it is on disk.
 */
import { existsSync } from 'node:fs'
import { cp, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import type { LabId } from '../identity.js'
import { groupOf, type Provider } from '../provider/provider.js'
import { freeSpace, pathsOf, readIfThere, recordIfThere, writePrivate } from '../state.js'

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

export const about = 'snapshot.json'

export const folderOf = (lab: LabId): string => pathsOf(lab).snapshots

/** Exists while a lab is half restored. */
export const markOf = (lab: LabId): string => pathsOf(lab).restoring

/** Files of the lab's folder that belong to the disks: the lab file as last applied, and the keys. */
export const ownEntries = [
  'lab.yaml',
  'lab.json',
  'secrets.json',
  'kubeconfig',
  'manifests',
  'rendered',
] as const

export const refuseName = (name: string): void => {
  if (/^[a-z0-9][a-z0-9-]{0,31}$/.test(name)) return
  throw new LabError(
    'bad-snapshot-name',
    `${JSON.stringify(name)} is not a valid name for a snapshot: use up to 32 of a-z, 0-9 and -`,
    { hint: 'lab snapshot LAB before-the-upgrade', exitCode: exitCodes.usage },
  )
}

/** @throws LabError `bad-state` if its description is damaged; it can be removed, or replaced */
export const readSnapshot = (lab: LabId, name: string): Promise<Snapshot | undefined> =>
  recordIfThere<Snapshot>(
    join(folderOf(lab), name, about),
    'when and how this snapshot was taken',
    (one) =>
      one.name === name &&
      typeof one.taken === 'string' &&
      Array.isArray(one.machines) &&
      (one.while === 'off' || one.while === 'paused') &&
      typeof one.bytes === 'number' &&
      typeof one.pausedFor === 'number',
    `lab snapshots ${lab.name} --remove ${name}`,
  )

/** Exists during an exercise: `lab up` then leaves the snapshot for a reset alone. */
export const exerciseMark = (lab: LabId): string => join(pathsOf(lab).learn, 'open')

/** Whether there is a snapshot of this name, even if its description is damaged. */
export const hasSnapshot = (lab: LabId, name: string): boolean => existsSync(join(folderOf(lab), name, about))

/** The snapshots of a lab, the oldest first. */
export const snapshotsOf = async (lab: LabId): Promise<readonly Snapshot[]> => {
  const names = await readdir(folderOf(lab)).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  })
  const found = await Promise.all(
    names.filter((name) => !name.startsWith('.')).map((name) => readSnapshot(lab, name)),
  )
  return found.flatMap((one) => one ?? []).sort((a, b) => a.taken.localeCompare(b.taken))
}

export const noSuchSnapshot = async (lab: LabId, name: string): Promise<LabError> => {
  const there = (await snapshotsOf(lab)).map((one) => one.name)
  return new LabError('no-snapshot', `${lab.name} has no snapshot called ${name}`, {
    hint: there.length === 0 ? `lab snapshot ${lab.name} NAME` : `there are: ${there.join(', ')}`,
    exitCode: exitCodes.usage,
  })
}

/** @throws LabError if there is none of this name */
export const removeSnapshot = async (lab: LabId, name: string): Promise<void> => {
  refuseName(name)
  if (!hasSnapshot(lab, name)) throw await noSuchSnapshot(lab, name)
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
export const refuseFull = async (lab: LabId, bytes: number): Promise<void> => {
  const { root } = pathsOf(lab)
  const free = await freeSpace(root)
  if (free > bytes * 1.1) return
  throw new LabError('no-space', `${root}: ${gib(free)} are free; the copy needs ${gib(bytes)}`, {
    hint: `lab snapshots ${lab.name}; remove one: lab snapshots ${lab.name} --remove NAME`,
    exitCode: exitCodes.host,
  })
}

export const copyEntries = async (from: string, into: string): Promise<void> => {
  for (const entry of ownEntries)
    if (await stat(join(from, entry)).catch(() => undefined))
      await cp(join(from, entry), join(into, entry), { recursive: true, preserveTimestamps: true })
}

/**
 * Whether the lab file is the one of this snapshot. Then a repaired lab keeps its snapshot: a reset should remove what
 * was done to the lab since. A damaged snapshot fits nothing, so that it is replaced.
 */
export const fits = async (lab: LabId, name: string): Promise<boolean> => {
  const { root } = pathsOf(lab)
  const own = join(folderOf(lab), name)
  const found = await readSnapshot(lab, name).catch((error: unknown) => {
    if (error instanceof LabError && error.code === 'bad-state') return undefined
    throw error
  })
  if (!found) return false
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
  const text = await readIfThere(markOf(lab))
  if (text === undefined) return
  // A power cut may have emptied it.
  const name = text.trim()
  throw new LabError(
    'half-restored',
    `${lab.name}: the restore of ${name || 'a snapshot'} was interrupted, and its disks are from two different moments`,
    {
      hint: name
        ? `lab restore ${lab.name} ${name}`
        : `lab snapshots ${lab.name}, then: lab restore ${lab.name} NAME`,
    },
  )
}

/** @throws LabError if the provider has no snapshots, or there is none of this name */
export const refuseUnlessThere = async (lab: LabId, provider: Provider, name: string): Promise<void> => {
  refuseName(name)
  groupOf(provider, 'snapshots')
  if (!(await readSnapshot(lab, name))) throw await noSuchSnapshot(lab, name)
}

/** The sizes of all files of disks, by their paths in the folder of disks; absent in older snapshots. */
type Sizes = Readonly<Record<string, number>>

const sizesFile = (lab: LabId, name: string): string => join(folderOf(lab), name, 'disks.json')

/** @param folder of disks, by machine */
const sizesIn = async (folder: string): Promise<Sizes> => {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  return Object.fromEntries(
    await Promise.all(files.map(async (file) => [relative(folder, file), (await stat(file)).size] as const)),
  )
}

/** Records what belongs to a snapshot, in its folder. */
export const keepSizes = async (lab: LabId, name: string): Promise<void> => {
  const sizes = await sizesIn(pathsOf(lab).snapshotDisks(name))
  await writePrivate(sizesFile(lab, name), JSON.stringify(sizes, null, 2))
}

/** @throws LabError if a file of its disks is gone or has another size */
const refuseDamaged = async (lab: LabId, name: string): Promise<void> => {
  const hint = `lab snapshots ${lab.name} --remove ${name}`
  const wanted = await recordIfThere<Sizes>(
    sizesFile(lab, name),
    'the sizes of the disks of this snapshot',
    (sizes) => Object.values(sizes).every((size) => typeof size === 'number'),
    hint,
  )
  if (!wanted) return
  const folder = pathsOf(lab).snapshotDisks(name)
  const there = await sizesIn(folder)
  for (const [file, size] of Object.entries(wanted)) {
    const now = there[file]
    if (now === size) continue
    throw new LabError(
      'bad-snapshot',
      `${join(folder, file)}: ${now === undefined ? 'is gone' : `has ${String(now)} instead of ${String(size)} bytes`}, so the snapshot ${name} cannot be restored`,
      { hint, exitCode: exitCodes.host },
    )
  }
}

/**
 * @throws LabError if disks of one of its machines are gone, or are not as they were taken: the lab is better off as it
 * is
 */
export const refuseWithoutDisks = async (lab: LabId, { name, machines }: Snapshot): Promise<void> => {
  for (const machine of machines) {
    const disks = join(pathsOf(lab).snapshotDisks(name), machine)
    const there = await readdir(disks).catch(() => [])
    if (there.length === 0)
      throw new LabError(
        'bad-snapshot',
        `${disks}: the disks of ${machine} are gone from the snapshot ${name}`,
        {
          hint: `lab snapshots ${lab.name} --remove ${name}`,
          exitCode: exitCodes.host,
        },
      )
  }
  await refuseDamaged(lab, name)
}

/** A sentence for the list of snapshots. */
export const describe = (snapshot: Snapshot): string =>
  snapshot.while === 'off'
    ? 'taken while the lab was off'
    : `taken while the machines were paused for ${snapshot.pausedFor.toFixed(1)} s`
