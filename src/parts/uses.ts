/**
 * Which machines need which part of a cache. Machines of other users, seats and state folders are in places that the
 * user who tidies up the cache cannot read, so each machine is recorded in the cache itself: as a small file in
 * `uses/`, a folder in which everybody can create files, but can remove only their own. The file names the machine's
 * folder and the parts; its content is never executed, and no path in it is opened.
 */
import { constants } from 'node:fs'
import { chmod, lstat, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { createHash } from 'node:crypto'
import { basename, dirname, join } from 'node:path'

/** Like /tmp: everybody may add files, and remove only their own. */
const everybody = 0o1777

/** The size limit of a note in bytes: lab writes no longer ones. */
const longestNote = 8192

const usesFolder = (root: string): string => join(root, 'uses')

/** The cache and the part that contain a file: `ROOT/parts/KEY/disk.ext4`; undefined if it is not a file of a part. */
const partOf = (file: string): { readonly root: string; readonly key: string } | undefined => {
  const part = dirname(file)
  const parts = dirname(part)
  return basename(parts) === 'parts' ? { root: dirname(parts), key: basename(part) } : undefined
}

const noteFile = (root: string, folder: string): string =>
  join(usesFolder(root), `${createHash('sha256').update(folder).digest('hex').slice(0, 24)}.json`)

/** Makes the folder for notes, as far as this user may. */
export const openUses = async (root: string): Promise<void> => {
  try {
    await mkdir(usesFolder(root))
    // mkdir is subject to the umask.
    await chmod(usesFolder(root), everybody)
  } catch {
    // It exists; or the cache is not ours, and noteUse decides whether that matters.
  }
}

/**
 * Records that the machine in this folder needs these files of a cache.
 * @returns whether it is recorded: it cannot be if the cache is read-only for this user and has no folder for notes
 */
export const noteUse = async (folder: string, files: readonly string[]): Promise<boolean> => {
  const keys = new Map<string, string[]>()
  for (const file of files) {
    const part = partOf(file)
    if (part) keys.set(part.root, [...(keys.get(part.root) ?? []), part.key])
  }
  let noted = true
  for (const [root, parts] of keys) {
    await openUses(root)
    const note = noteFile(root, folder)
    const next = `${note}.${String(process.pid)}`
    try {
      const handle = await open(next, 'wx', 0o644)
      try {
        await handle.writeFile(JSON.stringify({ folder, parts }))
      } finally {
        await handle.close()
      }
      await rename(next, note)
    } catch {
      await rm(next, { force: true }).catch(() => undefined)
      noted = false
    }
  }
  return noted
}

/** The machine is gone. A note that stays does no harm, because it counts only while the machine's folder exists. */
export const forgetUse = async (folder: string, files: readonly string[]): Promise<void> => {
  for (const root of new Set(files.flatMap((file) => partOf(file)?.root ?? [])))
    await rm(noteFile(root, folder), { force: true }).catch(() => undefined)
}

interface Note {
  readonly folder: string
  readonly parts: readonly string[]
}

/** Anybody may have written it, so links and pipes are not opened, and invalid notes are ignored. */
const readNote = async (path: string): Promise<Note | undefined> => {
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const stats = await handle.stat()
      if (!stats.isFile() || stats.size > longestNote) return undefined
      const { folder, parts } = JSON.parse(await handle.readFile('utf8')) as Partial<Note>
      if (typeof folder !== 'string' || !folder.startsWith('/') || !Array.isArray(parts)) return undefined
      return { folder, parts: parts.filter((key) => typeof key === 'string' && /^[a-z0-9.-]+$/.test(key)) }
    } finally {
      await handle.close()
    }
  } catch {
    return undefined
  }
}

/** Whether the machine's folder is certainly gone: a folder that we may not read may exist. */
const isGone = (folder: string): Promise<boolean> =>
  lstat(folder).then(
    () => false,
    (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOENT',
  )

/** The parts of a cache that machines of any user need, as paths. Notes of machines that are gone are removed. */
export const partsInUse = async (root: string): Promise<readonly string[]> => {
  const used: string[] = []
  for (const entry of await readdir(usesFolder(root)).catch(() => [])) {
    const path = join(usesFolder(root), entry)
    const note = await readNote(path)
    if (note && !(await isGone(note.folder))) used.push(...note.parts.map((key) => join(root, 'parts', key)))
    else if (note) await rm(path, { force: true }).catch(() => undefined)
  }
  return used
}
