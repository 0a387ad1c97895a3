import { existsSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { exitCodes, LabError } from '../error.js'
import type { Lab, ProviderName } from '../lab/lab.js'
import { takeLock } from '../lock.js'
import type { Provider } from '../provider/provider.js'
import { chooseProvider, providerNamed, providerNames } from '../provider/registry.js'
import type { Session } from '../session.js'
import { keptSecrets, type LabPaths, pathsOf, writePrivate } from '../state.js'
import { refuseForeign, refuseForeignIn } from '../trust.js'
import { keepSecret } from '../view/secrets.js'
import type { View } from '../view/view.js'

/** Options that every command has. */
export interface Options {
  readonly output?: 'text' | 'json'
  readonly events?: boolean
  readonly provider?: ProviderName
  readonly wait?: boolean
  /** Questions are answered with yes. */
  readonly yes?: boolean
}

/** What a command may touch of the process it runs in. */
export interface Io {
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  /** Aborted by Ctrl-C, SIGTERM, and a terminal that is closed. */
  readonly signal: AbortSignal
  /** Asks whoever sits at the terminal; absent: nobody does. */
  readonly ask?: (question: string) => Promise<boolean>
}

/** JSON for programs, on standard output. */
export const printJson = (io: Io, schema: string, data: object): void => {
  io.stdout.write(`${JSON.stringify({ schema, ...data }, null, 2)}\n`)
}

/**
 * Everything of a lab file that is for nobody's eyes, wherever in it: passwords, and the names that CHAP asks for
 * with them. The name of a database's user is none: it is shown to those who shall use it.
 */
export const secretsIn = (lab: Lab): readonly string[] => {
  const found = new Set<string>()
  const walk = (value: unknown, chap: boolean): void => {
    if (typeof value !== 'object' || value === null) return
    for (const [key, inner] of Object.entries(value)) {
      if (typeof inner === 'string' && (/password$/i.test(key) || (chap && /^user(name)?$/i.test(key))))
        found.add(inner)
      walk(inner, chap)
    }
  }
  walk(lab.targets, true)
  walk(lab.database, false)
  return [...found]
}

/** Undefined: there is no such file. What may not be read is an error: it is there. */
const readIfThere = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  })

const providerFile = (lab: Pick<Lab, 'name'>): string => join(pathsOf(lab.name).root, 'provider')

/** The provider that a lab was brought up with; undefined: it was not. */
export const providerInUse = async (lab: Pick<Lab, 'name'>): Promise<Provider | undefined> => {
  const path = providerFile(lab)
  const text = await readIfThere(path)
  if (text === undefined) return undefined
  const name = providerNames.find((each) => each === text.trim())
  if (name === undefined)
    throw new LabError('bad-state', `${path} should name the provider of ${lab.name}, and does not`, {
      hint: `lab down ${lab.name}`,
      log: path,
    })
  return providerNamed(name)
}

/** The provider for `up`: the one in use; else the one that was asked for; else the first that works. */
export const providerForUp = async (lab: Lab, options: Options, signal: AbortSignal): Promise<Provider> => {
  const inUse = await providerInUse(lab)
  const asked = options.provider ?? lab.provider
  if (inUse && asked && inUse.name !== asked)
    throw new LabError('other-provider', `${lab.name} was brought up with ${inUse.name}, not ${asked}`, {
      hint: `lab down ${lab.name}`,
      exitCode: exitCodes.usage,
    })
  return inUse ?? chooseProvider(asked, lab, signal)
}

export const rememberProvider = (lab: Lab, provider: Provider): Promise<void> =>
  writePrivate(providerFile(lab), `${provider.name}\n`)

/** @throws LabError `not-up` with the command that brings it up. */
export const providerOf = async (lab: Pick<Lab, 'name'>): Promise<Provider> => {
  const provider = await providerInUse(lab)
  if (!provider)
    throw new LabError('not-up', `${lab.name} is not up`, {
      hint: `lab up ${lab.name}`,
      exitCode: exitCodes.failed,
    })
  return provider
}

/** A parsed lab file: to load the YAML parser and the schema takes longer than most commands that look. */
interface ParsedLab {
  /** Which program parsed it, and what. Another one may see something else in the same text. */
  readonly program: string
  readonly text: string
  readonly lab: Lab
}

const parsedFile = (name: string): string => join(pathsOf(name).root, 'lab.json')

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

/** The lab of the copy of a lab file, which has its manifests in a place of their own. */
const asKept = (lab: Lab): Lab =>
  lab.manifests === undefined ? lab : { ...lab, manifests: keptManifests(pathsOf(lab.name), lab.manifests) }

/** Keeps the lab file as it is applied now, for when it is gone, and parsed, for commands that look. */
export const rememberLab = async (lab: Lab): Promise<void> => {
  const { parseLab } = await import('../lab/load.js')
  const copy = pathsOf(lab.name).source
  const text = await readFile(lab.file, 'utf8')
  await writePrivate(copy, text)
  const parsed: ParsedLab = { program: program(), text, lab: parseLab(text, copy) }
  await writePrivate(parsedFile(lab.name), JSON.stringify(parsed))
}

const parsedLab = async (name: string, text: string): Promise<Lab | undefined> => {
  const kept = await readIfThere(parsedFile(name))
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
  const lab = await (await import('../lab/load.js')).loadLab(nameOrPath)
  keepSecret(secretsIn(lab))
  if (lab.file.startsWith(shipped)) return lab
  refuseForeign(lab.file, { danger })
  const own = lab.file === pathsOf(lab.name).source ? asKept(lab) : lab
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
    const copy = pathsOf(nameOrPath).source
    const text = await readIfThere(copy)
    if (text !== undefined) {
      const lab = asKept(
        (await parsedLab(nameOrPath, text)) ?? (await import('../lab/load.js')).parseLab(text, copy),
      )
      keepSecret(secretsIn(lab))
      return lab
    }
  }
  return loadLab(nameOrPath)
}

export const lockFor = (lab: Pick<Lab, 'name'>, command: string, options: Options, io: Io, view: View) =>
  takeLock(pathsOf(lab.name).lock, {
    command: `lab ${command} ${lab.name}`,
    purpose: command === 'run' ? 'run' : 'change',
    wait: options.wait ? (who) => view.notice(`waiting for ${who}`) : undefined,
    signal: io.signal,
  })

/** A session with the lab's machines; its kubectl is the one that was built for the lab, else the host's own. */
export const sessionFor = async (lab: Lab, provider: Provider, signal: AbortSignal): Promise<Session> => {
  const [{ builtKubectl }, { openSession }] = await Promise.all([
    import('../parts/parts.js'),
    import('../session.js'),
  ])
  keepSecret(Object.values((await keptSecrets(pathsOf(lab.name))) ?? {}))
  return openSession(lab, provider, signal, builtKubectl() ?? 'kubectl')
}

/**
 * Undoes the faults that a run which was killed has left: what changes a lab starts from one that is whole.
 * @returns whether there were any; then machines may be on their way up
 */
export const healFirst = async (session: Session, view: View): Promise<boolean> => {
  // Loaded here: `lab status` comes through this file, has nothing to heal, and must be quick.
  const { readJournal, refuseWhileFenced } = await import('../journal.js')
  const { settleFences } = await import('../fencing/fence.js')
  await settleFences(session.lab, session.signal)
  const open = await readJournal(session.lab.name)
  if (open.length === 0) return false
  const fenced = open.filter(({ fault }) => fault === 'fence')
  const left = open.filter(({ fault }) => fault !== 'fence')
  for (const by of new Set(left.map((entry) => entry.by)))
    view.notice(`${by} was killed: undoing what it left`)
  for (const node of new Set(fenced.map(({ undo }) => undo.machine)))
    view.notice(`${node} was fenced: it comes back by a fresh boot`)
  const { undoAll } = await import('../fault/undo.js')
  for (const problem of await undoAll(session)) view.notice(`not undone: ${problem}`)
  await refuseWhileFenced(session.lab.name)
  return true
}
