/**
 * The fencing agent as a process of its own, which watches a lab while nobody is at the keyboard. `up` starts it,
 * `stop` and `down` end it. It remembers nothing: who is fenced is in the journal of what is to be undone.
 */
import { spawn } from 'node:child_process'
import { mkdir, open, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { holderOf, takeLock } from '../lock.js'
import type { Context } from '../plan/step.js'
import { pathsOf } from '../state.js'
import { type Fenced, type FenceMethod, fencingAgent } from './agent.js'

const stateSchema = z.strictObject({
  /** ISO 8601, of the last look. */
  at: z.iso.datetime(),
  method: z.enum(['power', 'storage']),
  /** Another command is at work on the lab: whatever goes now does so on purpose. */
  suspended: z.boolean(),
  /** The workers that would be fenced if they went. */
  watched: z.array(z.string()),
})

/** What a fencing agent that lives said last. */
export interface AgentState extends z.output<typeof stateSchema> {
  readonly pid: number
}

const fencedSchema = z.strictObject({ at: z.iso.datetime(), node: z.string(), detail: z.string() })

const filesOf = (lab: string) => {
  const { fencing } = pathsOf(lab)
  return {
    folder: fencing,
    lock: join(fencing, 'lock'),
    state: join(fencing, 'state.json'),
    fenced: join(fencing, 'fenced.ndjson'),
    log: join(fencing, 'log'),
  }
}

/** Commands that change a lab on purpose; `lab run` is not one of them. */
const changing = /^lab (up|start|stop|heal|down) /

/** Milliseconds between two notes of what the agent sees. */
const noteEvery = 500

/** The agent's whole life; ends with the signal, or when the lab's folder goes. */
export const runAgent = async (
  context: Context,
  method: FenceMethod,
  notice: (text: string) => void,
  signal: AbortSignal,
): Promise<void> => {
  const { name } = context.lab
  const files = filesOf(name)
  const release = await takeLock(files.lock, { command: `lab fencing-agent ${name}`, signal })
  const gone = new AbortController()
  const ending = AbortSignal.any([signal, gone.signal])
  let suspended = false
  let noted = 0
  const note = async (watched: readonly string[]): Promise<void> => {
    if (performance.now() - noted < noteEvery) return
    noted = performance.now()
    const next = `${files.state}.new`
    const state: z.input<typeof stateSchema> = {
      at: new Date().toISOString(),
      method,
      suspended,
      watched: [...watched],
    }
    try {
      await writeFile(next, JSON.stringify(state), { mode: 0o600 })
      await rename(next, files.state)
    } catch {
      // Without its folder there is no lab any more, and nobody to watch.
      gone.abort()
    }
  }
  const log = await open(files.fenced, 'a', 0o600)
  try {
    await fencingAgent(
      context,
      {
        method,
        by: 'the fencing agent',
        suspended: async () => {
          suspended = changing.test((await holderOf(pathsOf(name).lock))?.command ?? '')
          if (suspended) await note([])
          return suspended
        },
        fenced: (seen) => log.appendFile(`${JSON.stringify(seen)}\n`),
        notice,
        looked: note,
      },
      ending,
    )
  } finally {
    await log.close()
    await release()
  }
}

/** What the agent said last; undefined: there is none that lives. */
export const agentState = async (lab: string): Promise<AgentState | undefined> => {
  const files = filesOf(lab)
  const holder = await holderOf(files.lock)
  const text = await readFile(files.state, 'utf8').catch(() => undefined)
  if (!holder || text === undefined) return undefined
  const state = stateSchema.safeParse(JSON.parse(text))
  return state.success ? { ...state.data, pid: holder.pid } : undefined
}

/** Whom the agent fenced since a moment. */
export const fencedSince = async (lab: string, since: Date): Promise<readonly Fenced[]> => {
  const text = await readFile(filesOf(lab).fenced, 'utf8').catch(() => '')
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => fencedSchema.parse(JSON.parse(line)))
    .filter(({ at }) => Date.parse(at) >= since.getTime())
}

const program = fileURLToPath(new URL('../cli.js', import.meta.url))

/** Starts the agent; returns before it has looked for the first time. */
export const startAgent = async (lab: string): Promise<void> => {
  const files = filesOf(lab)
  await mkdir(files.folder, { recursive: true, mode: 0o700 })
  const log = await open(files.log, 'a', 0o600)
  try {
    const child = spawn(process.execPath, [program, 'fencing-agent', lab], {
      stdio: ['ignore', log.fd, log.fd],
      detached: true,
      cwd: '/',
    })
    child.on('error', () => undefined)
    child.unref()
  } finally {
    await log.close()
  }
}

/** Milliseconds for the agent to end by itself. */
const farewell = 5000

/** Ends the agent; nothing to do where there is none. */
export const stopAgent = async (lab: string): Promise<void> => {
  const { lock } = filesOf(lab)
  const begun = performance.now()
  for (let asked = false; ;) {
    const holder = await holderOf(lock)
    if (!holder) return
    const late = performance.now() - begun > farewell
    if (!asked || late) process.kill(holder.pid, late ? 'SIGKILL' : 'SIGTERM')
    asked = true
    await delay(20)
  }
}
