/**
 * The fencing agent as a process, which watches a lab while no command runs. `up` starts it; `stop` and `down` end
 * it. It keeps no state in memory: the journal records which nodes are fenced.
 *
 * Its keeper, a second process, restarts it when it ends; and when the keeper ends, the agent starts another keeper
 * and ends itself. So whichever of the two is killed, both are running again after a moment. Their command lines differ:
 * whoever ends every process that is called `fencing-agent` does not end both.
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
import { type AgentNote, type Blind, filesOf } from './state.js'

const fencedSchema = z.object({
  at: z.iso.datetime(),
  node: z.string(),
  detail: z.string(),
  id: z.string().optional(),
})

/** Milliseconds between two notes of the agent's state. */
const noteEvery = 500
/** Milliseconds until an ended agent is restarted. */
const restartAfter = 300
/** Size in bytes at which a log is rotated; one rotated log is kept. */
const longestLog = 1024 ** 2
/** Number of fences in the history. */
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
      // A line that a power cut shortened: that fence is confirmed again.
      return []
    }
  })
}

/** The fences of the agent since a moment. */
export const fencedSince = async (lab: LabId, since: Date): Promise<readonly Fenced[]> =>
  (await readFenced(lab)).filter(({ at }) => Date.parse(at) >= since.getTime())

/** Runs the agent until the signal, or until the lab's folder is gone. */
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
  const note = async (
    watched: readonly string[],
    fencing: readonly string[],
    blind?: Blind,
  ): Promise<void> => {
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
      blind,
    }
    const next = `${files.state}.new`
    try {
      await writeFile(next, JSON.stringify(state), { mode: 0o600 })
      await rename(next, files.state)
    } catch {
      // Without its folder there is no lab to watch.
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
          // A holder without a purpose is an earlier version.
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

/** Appends to the agent's log, and rotates it when it gets too long. */
const writeLog = async (lab: LabId, text: string): Promise<void> => {
  const { log } = filesOf(lab)
  try {
    const { size } = await stat(log).catch(() => ({ size: 0 }))
    if (size > longestLog) await rename(log, `${log}.1`)
    await appendFile(log, text, { mode: 0o600 })
  } catch {
    // The folder is gone with the lab, or the disk is full: fencing matters more than its log.
  }
}

/**
 * Runs the keeper, which starts the agent whenever it has ended, until the signal or until the agent is no longer
 * wanted. Does nothing if another keeper is running.
 */
export const keepAgent = async (lab: LabId, signal: AbortSignal): Promise<void> => {
  const files = filesOf(lab)
  const isWanted = async (): Promise<boolean> => !signal.aborted && (await exists(files.wanted))
  if (!(await isWanted())) return
  const release = await takeLock(files.keeperLock, {
    command: `lab fencing-keeper ${lab.name}`,
    purpose: 'watch',
    folderExists: true,
    signal,
  })
  try {
    while (await isWanted()) {
      const child = spawn(process.execPath, [program, 'fencing-agent', lab.name], {
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

/** Starts a keeper, which outlives this process. Returns before the agent's first observation. */
export const startKeeper = (lab: LabId): void => {
  const child = spawn(process.execPath, [program, 'fencing-keeper', lab.name], {
    env: atSeatOf(lab),
    stdio: 'ignore',
    detached: true,
    cwd: '/',
  })
  child.on('error', () => undefined)
  child.unref()
}

/** Makes sure that the agent runs from now on. Returns before its first observation. */
export const startAgent = async (lab: LabId): Promise<void> => {
  const { folder, wanted } = filesOf(lab)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await writeFile(wanted, '', { mode: 0o600 })
  startKeeper(lab)
}

/** Whether the agent should run, or it or its keeper is still running. */
export const isAgentWanted = async (lab: LabId): Promise<boolean> => {
  const { wanted, lock, keeperLock } = filesOf(lab)
  return (
    (await exists(wanted)) ||
    (await Promise.all([holderOf(keeperLock), holderOf(lock)])).some((holder) => holder !== undefined)
  )
}

/** Milliseconds for the agent and its keeper to end on request. */
const farewell = 5000

/** Ends the agent and its keeper, if they run. */
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
        // It has just ended on its own.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
      }
    }
    await delay(20)
  }
}
