/**
 * The fencing agent as a process of its own, which watches a lab while nobody is at the keyboard. `up` starts it,
 * `stop` and `down` end it. It remembers nothing: who is fenced is in the journal of what is to be undone.
 *
 * It has a keeper, a second process that starts it again when it ends; and when the keeper ends, the agent starts
 * another keeper and ends itself, so that whichever of the two is killed, both are there again after a moment.
 */
import { atSeatOf, type LabId } from '../identity.js'
import { spawn } from 'node:child_process'
import { access, appendFile, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { holderOf, takeLock } from '../lock.js'
import type { Context } from '../context.js'
import { pathsOf } from '../state.js'
import { fencingAgent } from './agent.js'
import type { Fenced, FenceMethod } from './fence.js'
import { type AgentNote, filesOf } from './state.js'

const fencedSchema = z.object({
  at: z.iso.datetime(),
  node: z.string(),
  detail: z.string(),
  id: z.string().optional(),
})

/** Milliseconds between two notes of what the agent sees. */
const noteEvery = 500
/** Milliseconds until an agent that ended is started again. */
const restartAfter = 300
/** Bytes of a log, after which it is put aside, and the one that was aside before is gone. */
const longestLog = 1024 ** 2
/** Fences that are remembered. */
const mostFenced = 1000

const program = fileURLToPath(new URL('../cli.js', import.meta.url))

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

const readFenced = async (lab: LabId): Promise<readonly Fenced[]> => {
  const text = await readFile(filesOf(lab).fenced, 'utf8').catch(() => '')
  return text.split('\n').flatMap((line) => {
    try {
      return line === '' ? [] : [fencedSchema.parse(JSON.parse(line))]
    } catch {
      // The beginning of a line, as a power cut leaves it: that fence is made sure of once more.
      return []
    }
  })
}

/** Whom the agent fenced since a moment. */
export const fencedSince = async (lab: LabId, since: Date): Promise<readonly Fenced[]> =>
  (await readFenced(lab)).filter(({ at }) => Date.parse(at) >= since.getTime())

/** The agent's whole life; ends with the signal, or when the lab's folder goes. */
export const runAgent = async (
  context: Context,
  method: FenceMethod,
  notice: (text: string) => void,
  signal: AbortSignal,
): Promise<void> => {
  const { lab } = context
  const files = filesOf(lab)
  const release = await takeLock(files.lock, {
    command: `lab fencing-agent ${lab.name}`,
    purpose: 'watch',
    folderExists: true,
    // An earlier agent is about to end.
    wait: () => undefined,
    signal,
  })
  const gone = new AbortController()
  const ending = AbortSignal.any([signal, gone.signal])
  const since = new Map<string, string>()
  let suspended = false
  let noted = 0
  const note = async (watched: readonly string[], fencing: readonly string[]): Promise<void> => {
    const at = new Date().toISOString()
    for (const node of [...since.keys()]) if (!watched.includes(node)) since.delete(node)
    for (const node of watched) if (!since.has(node)) since.set(node, at)
    if (performance.now() - noted < noteEvery) return
    noted = performance.now()
    const state: AgentNote = {
      at,
      method,
      suspended,
      watched: [...since].map(([node, from]) => ({ node, since: from })),
      fencing,
    }
    const next = `${files.state}.new`
    try {
      await writeFile(next, JSON.stringify(state), { mode: 0o600 })
      await rename(next, files.state)
    } catch {
      // Without its folder there is no lab any more, and nobody to watch.
      gone.abort()
    }
  }
  const before = await readFenced(lab)
  if (before.length > mostFenced) {
    const next = `${files.fenced}.new`
    const last = before.slice(-mostFenced / 2)
    await writeFile(next, last.map((each) => `${JSON.stringify(each)}\n`).join(''), { mode: 0o600 })
    await rename(next, files.fenced)
  }
  try {
    await fencingAgent(
      context,
      {
        method,
        by: 'the fencing agent',
        confirmed: new Set(before.flatMap(({ id }) => (id === undefined ? [] : [id]))),
        suspended: async () => {
          // A holder without a purpose is one of an earlier version.
          suspended = ((await holderOf(pathsOf(lab).lock))?.purpose ?? 'run') === 'change'
          if (suspended) await note([], [])
          return suspended
        },
        fenced: (seen) => appendFile(files.fenced, `${JSON.stringify(seen)}\n`, { mode: 0o600 }),
        notice,
        looked: note,
      },
      ending,
    )
  } finally {
    await release()
  }
}

/** Adds to the log of the agent; what would make it too long goes into a new one. */
const writeLog = async (lab: LabId, text: string): Promise<void> => {
  const { log } = filesOf(lab)
  try {
    const { size } = await stat(log).catch(() => ({ size: 0 }))
    if (size > longestLog) await rename(log, `${log}.1`)
    await appendFile(log, text, { mode: 0o600 })
  } catch {
    // The folder went with the lab, or the disk is full: fencing matters more than what is said about it.
  }
}

/**
 * The keeper's whole life: starts the agent, and again whenever it ends, until the signal or until nobody wants it.
 * Nothing to do where another keeper lives.
 */
export const keepAgent = async (lab: LabId, signal: AbortSignal): Promise<void> => {
  const files = filesOf(lab)
  const isWanted = async (): Promise<boolean> => !signal.aborted && (await exists(files.wanted))
  if (!(await isWanted())) return
  const release = await takeLock(files.keeperLock, {
    command: `the keeper of the fencing agent of ${lab.name}`,
    purpose: 'watch',
    folderExists: true,
    signal,
  })
  try {
    while (await isWanted()) {
      const child = spawn(process.execPath, [program, 'fencing-agent', lab.name, '--watch'], {
        env: atSeatOf(lab),
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
        cwd: '/',
      })
      let writing = Promise.resolve()
      const log = (text: string): void => {
        writing = writing.then(() => writeLog(lab, text))
      }
      for (const stream of [child.stdout, child.stderr])
        stream?.setEncoding('utf8').on('data', (text: string) => log(text))
      const end = (): void => {
        child.kill('SIGTERM')
      }
      signal.addEventListener('abort', end, { once: true })
      const how = await new Promise<string>((resolve) => {
        child.once('error', (error) => resolve(error.message))
        child.once('exit', (code, by) => resolve(by ?? `exit code ${String(code)}`))
      })
      signal.removeEventListener('abort', end)
      log(`${new Date().toISOString()} the agent ended (${how})\n`)
      await writing
      await delay(restartAfter, undefined, { signal }).catch(() => undefined)
    }
  } finally {
    await release()
  }
}

/** Starts a keeper, which outlives this process; returns before the agent has looked for the first time. */
export const startKeeper = (lab: LabId): void => {
  const child = spawn(process.execPath, [program, 'fencing-agent', lab.name], {
    env: atSeatOf(lab),
    stdio: 'ignore',
    detached: true,
    cwd: '/',
  })
  child.on('error', () => undefined)
  child.unref()
}

/** The agent is to be at work from now on; returns before it has looked for the first time. */
export const startAgent = async (lab: LabId): Promise<void> => {
  const { folder, wanted } = filesOf(lab)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await writeFile(wanted, '', { mode: 0o600 })
  startKeeper(lab)
}

/** Whether the agent is to be at work, or it or its keeper lives still. */
export const isAgentWanted = async (lab: LabId): Promise<boolean> => {
  const { wanted, lock, keeperLock } = filesOf(lab)
  return (
    (await exists(wanted)) ||
    (await Promise.all([holderOf(keeperLock), holderOf(lock)])).some((holder) => holder !== undefined)
  )
}

/** Milliseconds for the agent and its keeper to end by themselves. */
const farewell = 5000

/** Ends the agent and its keeper; nothing to do where there is none. */
export const stopAgent = async (lab: LabId): Promise<void> => {
  const { wanted, lock, keeperLock } = filesOf(lab)
  await rm(wanted, { force: true })
  const begun = performance.now()
  const asked = new Set<number>()
  for (;;) {
    const holders = (await Promise.all([holderOf(keeperLock), holderOf(lock)])).filter(
      (holder) => holder !== undefined,
    )
    if (holders.length === 0) return
    const late = performance.now() - begun > farewell
    for (const { pid } of holders) {
      if (asked.has(pid) && !late) continue
      asked.add(pid)
      try {
        process.kill(pid, late ? 'SIGKILL' : 'SIGTERM')
      } catch (error) {
        // It ended by itself just now.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
      }
    }
    await delay(20)
  }
}
