import { existsSync, statSync } from 'node:fs'
import { cp, readFile, rename, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { labHere, type LabId } from '../identity.js'
import type { Lab } from '../lab/lab.js'
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

const parsedFile = (lab: LabId): string => join(pathsOf(lab).root, 'lab.json')

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

/** The lab at the seat of this process: its file knows the name but not the seat. */
const seated = (lab: Lab): Lab => ({ ...lab, ...labHere(lab.name) })

/** The lab of a kept lab file, whose manifests have a folder of their own. */
const asKept = (lab: Lab): Lab =>
  lab.manifests === undefined ? lab : { ...lab, manifests: keptManifests(pathsOf(lab), lab.manifests) }

/** Keeps the applied lab file for the time when the original is gone, and its parsed form for read-only commands. */
export const rememberLab = async (lab: Lab): Promise<void> => {
  const { parseLab } = await import('../registry.js')
  const copy = pathsOf(lab).source
  const text = await readFile(lab.file, 'utf8')
  await writePrivate(copy, text)
  const parsed: ParsedLab = { program: program(), text, lab: parseLab(text, copy) }
  await writePrivate(parsedFile(lab), JSON.stringify(parsed))
}

const parsedLab = async (id: LabId, text: string): Promise<Lab | undefined> => {
  const kept = await readIfThere(parsedFile(id))
  if (kept === undefined) return undefined
  try {
    const parsed = JSON.parse(kept) as ParsedLab
    return parsed.program === program() && parsed.text === text ? parsed.lab : undefined
  } catch {
    // An unreadable file is ignored: the copy of the lab file itself counts.
    return undefined
  }
}

/** The shipped labs, which are as trusted as the program itself. */
const shipped = fileURLToPath(new URL('../../labs/', import.meta.url))

const danger = 'lab would bring up what somebody else wrote'

/**
 * Loads a lab file that a user named.
 * @throws LabError if another user could have written it
 */
export const loadLab = async (nameOrPath: string): Promise<Lab> => {
  const lab = seated(await (await import('../registry.js')).loadLab(nameOrPath))
  keepSecret(secretsIn(lab))
  if (lab.file.startsWith(shipped)) return lab
  refuseForeign(lab.file, { danger })
  const own = lab.file === pathsOf(lab).source ? asKept(lab) : lab
  if (own.manifests !== undefined && refuseForeign(own.manifests, { danger }) !== undefined)
    refuseForeignIn(own.manifests, { danger }, 'ours-or-root')
  return own
}

/**
 * The lab as it was last brought up, from the copy in its folder if the file can no longer be read. Accepts the name
 * of a running lab or of a shipped one.
 */
export const loadRunning = async (nameOrPath: string): Promise<Lab> => {
  if (!nameOrPath.includes('/') && /^[a-z0-9-]+$/.test(nameOrPath)) {
    const id = labHere(nameOrPath)
    const copy = pathsOf(id).source
    const text = await readIfThere(copy)
    if (text !== undefined) {
      const lab = asKept(
        seated((await parsedLab(id, text)) ?? (await import('../registry.js')).parseLab(text, copy)),
      )
      keepSecret(secretsIn(lab))
      return lab
    }
  }
  return loadLab(nameOrPath)
}

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
