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

/** A parsed lab file: to load the YAML parser and the schema takes longer than most commands that look. */
interface ParsedLab {
  /** Which program parsed it, and what. Another one may see something else in the same text. */
  readonly program: string
  readonly text: string
  readonly lab: Lab
}

const parsedFile = (lab: LabId): string => join(pathsOf(lab).root, 'lab.json')

/** Changes whenever the program is built anew. */
const program = (): string => String(statSync(fileURLToPath(import.meta.url)).mtimeMs)

/** Folders that labs have had beside their manifests: of those none was ever a copy of some. */
const ownFolders = ['faults', 'fencing', 'machines', 'rendered', 'runs', 'ssh', '.vagrant']

/**
 * Where the manifests of a lab that was brought up are kept. Labs of earlier versions had the name that the lab file
 * gave, beside lab's own files.
 */
const keptManifests = ({ root, manifests }: LabPaths, named: string): string => {
  const earlier = join(root, basename(named))
  return !existsSync(manifests) && !ownFolders.includes(basename(named)) && existsSync(earlier)
    ? earlier
    : manifests
}

/** A lab as this process means it: its file says the name, and not the seat. */
const seated = (lab: Lab): Lab => ({ ...lab, ...labHere(lab.name) })

/** The lab of the copy of a lab file, which has its manifests in a place of their own. */
const asKept = (lab: Lab): Lab =>
  lab.manifests === undefined ? lab : { ...lab, manifests: keptManifests(pathsOf(lab), lab.manifests) }

/** Keeps the lab file as it is applied now, for when it is gone, and parsed, for commands that look. */
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
    // Whatever it is, it is not ours: the copy of the lab file itself counts.
    return undefined
  }
}

/** Shipped labs are as much lab's own as its program. */
const shipped = fileURLToPath(new URL('../../labs/', import.meta.url))

const danger = 'lab would bring up what somebody else wrote'

/** A lab file that a user names. @throws LabError for one that somebody else could have written */
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
 * The lab as it was last brought up, where the file cannot be read any more: the copy in its folder. The name
 * of a running lab is accepted as well as that of a shipped one.
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

/** Beside the copy of the lab file: what is up stays what it was, whatever becomes of the originals. */
export const keepManifests = async (lab: Lab): Promise<void> => {
  const { manifests } = lab
  const kept = pathsOf(lab).manifests
  if (manifests === undefined || manifests === kept) return
  // Complete before it takes the place of the one before.
  const next = `${kept}.new`
  await rm(next, { recursive: true, force: true })
  await cp(manifests, next, { recursive: true })
  await rm(kept, { recursive: true, force: true })
  await rename(next, kept)
}
