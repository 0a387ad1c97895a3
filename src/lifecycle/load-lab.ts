import { existsSync, statSync } from 'node:fs'
import { cp, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LabError } from '../error.js'
import { labHere, type LabId } from '../identity.js'
import type { Lab } from '../lab/lab.js'
import type { LabText } from '../lab/load.js'
import { shippedFolder } from '../lab/shipped.js'
import { secretsIn } from '../lab/secrets.js'
import { type LabPaths, pathsOf, readIfThere, writePrivate } from '../state.js'
import { refuseForeign, refuseForeignIn } from '../trust.js'
import { keepSecret } from '../view/secrets.js'

/** A parsed lab file: loading the YAML parser and the schema takes longer than most read-only commands. */
interface ParsedLab {
  /** The program that parsed it. Another version may read the same text differently. */
  readonly program: string
  readonly text: string
  readonly lab: Lab
}

/** Changes with every build of the program. */
const program = (): string => String(statSync(fileURLToPath(import.meta.url)).mtimeMs)

/** Folders next to the manifests that labs have had: none of them was ever a copy of manifests. */
const ownFolders = ['faults', 'fencing', 'machines', 'rendered', 'runs', 'ssh', '.vagrant']

/**
 * Where the manifests of a lab that was brought up are kept. Earlier versions used the name from the lab file, in the
 * same folder as lab's own files.
 */
const keptManifests = ({ root, manifests }: LabPaths, named: string): string => {
  const earlier = join(root, basename(named))
  return !existsSync(manifests) && !ownFolders.includes(basename(named)) && existsSync(earlier)
    ? earlier
    : manifests
}

/**
 * A lab as this process means it: its file gives the name, but not the seat; on hosts, it has the hosts' addresses,
 * and on an existing cluster, its nodes.
 */
const seated = async (written: Lab): Promise<Lab> => {
  const lab = { ...written, ...labHere(written.name) }
  if (existsSync(pathsOf(lab).cluster)) {
    const { keptCluster, onCluster } = await import('../provider/cluster/lab-record.js')
    const kept = await keptCluster(lab)
    return kept ? onCluster(lab, kept) : lab
  }
  if (!existsSync(pathsOf(lab).hosts)) return lab
  const { keptHosts, onHosts } = await import('../provider/hosts/lab-record.js')
  const kept = await keptHosts(lab)
  return kept ? onHosts(lab, kept) : lab
}

/** The lab of a kept lab file, whose manifests have a folder of their own. */
const asKept = (lab: Lab): Lab =>
  lab.manifests === undefined ? lab : { ...lab, manifests: keptManifests(pathsOf(lab), lab.manifests) }

/**
 * Keeps the applied lab file in case the original is lost, and its parsed form for read-only commands.
 * @param read the lab as it is applied, with its text: the file may have changed since
 */
export const rememberLab = async ({ lab, text }: LabText): Promise<void> => {
  const copy = pathsOf(lab).source
  await writePrivate(copy, text)
  // As it would be read from the copy.
  const manifests = lab.manifests && join(dirname(copy), relative(dirname(lab.file), lab.manifests))
  const parsed: ParsedLab = { program: program(), text, lab: { ...lab, file: copy, manifests } }
  await writePrivate(pathsOf(lab).parsed, JSON.stringify(parsed))
}

const parsedLab = async (id: LabId, text: string): Promise<Lab | undefined> => {
  const kept = await readIfThere(pathsOf(id).parsed)
  if (kept === undefined) return undefined
  try {
    const parsed = JSON.parse(kept) as ParsedLab
    return parsed.program === program() && parsed.text === text ? parsed.lab : undefined
  } catch {
    // An unreadable file is ignored: the copy of the lab file itself counts.
    return undefined
  }
}

const danger = 'lab would bring up a file that somebody else can change'

/** The lab file that a user named, or the copy of one. @throws LabError if another user could have written it */
const fromFile = async (path: string): Promise<LabText> => {
  const { readLab } = await import('../registry.js')
  const { lab: read, text } = await readLab(path)
  const lab = await seated(read)
  // A shipped lab is as trusted as the program itself.
  if (dirname(lab.file) === shippedFolder) return { lab, text }
  refuseForeign(lab.file, { danger })
  const own = lab.file === pathsOf(lab).source ? asKept(lab) : lab
  if (own.manifests !== undefined && refuseForeign(own.manifests, { danger }) !== undefined)
    refuseForeignIn(own.manifests, { danger }, 'ours-or-root')
  return { lab: own, text }
}

/** The lab as it was last brought up; undefined if there is none of this name. */
const fromCopy = async (id: LabId): Promise<LabText | undefined> => {
  const copy = pathsOf(id).source
  const text = await readIfThere(copy)
  if (text === undefined) return undefined
  const read = (await parsedLab(id, text)) ?? (await import('../registry.js')).parseLab(text, copy)
  return { lab: asKept(await seated(read)), text }
}

/** The lab as it was last brought up; undefined if there is none of this name. */
export const appliedLab = async (id: LabId): Promise<Lab | undefined> => (await fromCopy(id))?.lab

/**
 * The lab that a name or a path means.
 *
 * A path is a lab file. A name is that of a shipped lab, or of one that was brought up from a file of the user's own:
 * - `first: 'file'`, for commands that apply a lab file: the shipped file; for a name that no shipped lab has, the copy
 *   of the file from which a lab of this name was brought up.
 * - `first: 'copy'`, for commands that work with a running lab: the copy, whatever the file says by now; where nothing
 *   of this name was brought up, the shipped file.
 */
export const readLab = async (nameOrPath: string, first: 'file' | 'copy'): Promise<LabText> => {
  const id = /^[a-z0-9-]+$/.test(nameOrPath) ? labHere(nameOrPath) : undefined
  const copied = id && first === 'copy' ? await fromCopy(id) : undefined
  const found =
    copied ??
    (await fromFile(nameOrPath).catch((error: unknown) => {
      const made = id && existsSync(pathsOf(id).source)
      if (!made || !(error instanceof LabError && error.code === 'no-such-lab')) throw error
      return fromFile(pathsOf(id).source)
    }))
  keepSecret(secretsIn(found.lab))
  return found
}

/** {@link readLab} for commands that apply a lab file. */
export const loadLab = async (nameOrPath: string): Promise<Lab> => (await readLab(nameOrPath, 'file')).lab

/** {@link readLab} for commands that work with a running lab. */
export const loadRunning = async (nameOrPath: string): Promise<Lab> => (await readLab(nameOrPath, 'copy')).lab

/** Copies the manifests next to the lab file: a running lab keeps its version whatever happens to the originals. */
export const keepManifests = async (lab: Lab): Promise<void> => {
  const { manifests } = lab
  const kept = pathsOf(lab).manifests
  if (manifests === undefined || manifests === kept) return
  // The copy is complete before it replaces the previous one.
  const next = `${kept}.new`
  await rm(next, { recursive: true, force: true })
  await cp(manifests, next, { recursive: true })
  await rm(kept, { recursive: true, force: true })
  await rename(next, kept)
}
