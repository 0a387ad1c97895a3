import { statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { exitCodes, LabError } from '../error.js'
import type { Lab, ProviderName } from '../lab/lab.js'
import { takeLock } from '../lock.js'
import type { Provider } from '../provider/provider.js'
import { chooseProvider, providerNamed } from '../provider/registry.js'
import type { Session } from '../session.js'
import { pathsOf, writePrivate } from '../state.js'
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
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal
  /** Asks whoever sits at the terminal; absent: nobody does. */
  readonly ask?: (question: string) => Promise<boolean>
}

/** JSON for programs, on standard output. */
export const printJson = (io: Io, schema: string, data: object): void => {
  io.stdout.write(`${JSON.stringify({ schema, ...data }, null, 2)}\n`)
}

export const secretsIn = (lab: Lab): readonly string[] => [
  ...lab.targets.flatMap(({ chap }) => [chap.password, ...(chap.mutual ? [chap.mutual.password] : [])]),
  ...(lab.database ? [lab.database.password, lab.database.rootPassword] : []),
]

const providerFile = (lab: Pick<Lab, 'name'>): string => join(pathsOf(lab.name).root, 'provider')

/** The provider that a lab was brought up with; undefined: it was not. */
export const providerInUse = async (lab: Pick<Lab, 'name'>): Promise<Provider | undefined> => {
  const name = await readFile(providerFile(lab), 'utf8').catch(() => undefined)
  return name === undefined ? undefined : providerNamed(name.trim() as ProviderName)
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
  const kept = await readFile(parsedFile(name), 'utf8').catch(() => undefined)
  if (kept === undefined) return undefined
  try {
    const parsed = JSON.parse(kept) as ParsedLab
    return parsed.program === program() && parsed.text === text ? parsed.lab : undefined
  } catch {
    // Whatever it is, it is not ours: the copy of the lab file itself counts.
    return undefined
  }
}

/**
 * The lab as it was last brought up, where the file cannot be read any more: the copy in its folder. The name
 * of a running lab is accepted as well as that of a shipped one.
 */
export const loadRunning = async (nameOrPath: string): Promise<Lab> => {
  if (!nameOrPath.includes('/') && /^[a-z0-9-]+$/.test(nameOrPath)) {
    const copy = pathsOf(nameOrPath).source
    const text = await readFile(copy, 'utf8').catch(() => undefined)
    if (text !== undefined)
      return (await parsedLab(nameOrPath, text)) ?? (await import('../lab/load.js')).parseLab(text, copy)
  }
  return (await import('../lab/load.js')).loadLab(nameOrPath)
}

export const lockFor = (lab: Pick<Lab, 'name'>, command: string, options: Options, io: Io, view: View) =>
  takeLock(pathsOf(lab.name).lock, {
    command: `lab ${command} ${lab.name}`,
    wait: options.wait ? (who) => view.notice(`waiting for ${who}`) : undefined,
    signal: io.signal,
  })

/** A session with the lab's machines; its kubectl is the one that was built for the lab, else the host's own. */
export const sessionFor = async (lab: Lab, provider: Provider, signal: AbortSignal): Promise<Session> => {
  const [{ builtKubectl }, { openSession }] = await Promise.all([
    import('../parts/parts.js'),
    import('../session.js'),
  ])
  return openSession(lab, provider, signal, builtKubectl() ?? 'kubectl')
}

/**
 * Undoes the faults that a run which was killed has left: what changes a lab starts from one that is whole.
 * @returns whether there were any; then machines may be on their way up
 */
export const healFirst = async (session: Session, view: View): Promise<boolean> => {
  // Loaded here: `lab status` comes through this file, has nothing to heal, and must be quick.
  const { readJournal, refuseWhileFenced } = await import('../journal.js')
  const open = await readJournal(session.lab.name)
  if (open.length === 0) return false
  const fenced = open.filter(({ fault }) => fault === 'fence')
  const left = open.filter(({ fault }) => fault !== 'fence')
  for (const by of new Set(left.map((entry) => entry.by)))
    view.notice(`${by} was killed: undoing what it left`)
  for (const node of new Set(fenced.map(({ undo }) => undo.machine)))
    view.notice(`${node} was fenced: it comes back by a fresh boot`)
  const { undoAll } = await import('../scenario/undo.js')
  for (const problem of await undoAll(session)) view.notice(`not undone: ${problem}`)
  await refuseWhileFenced(session.lab.name)
  return true
}
