/** The machines of a lab: starts, stops, pauses and lists their processes. Everything else asks for one at a time. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { constants } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import type { Bridge } from './bridge.js'
import { confined } from './confine.js'
import { BoundedLog } from './console.js'
import { allProcesses, familyOf, type FoundProcess, lives } from '../../processes.js'
import type { RunningMachine, StartRequest } from './requests.js'

interface Entry extends StartRequest {
  readonly child: ChildProcess
  readonly started: number
  ended?: string
}

/** Size in bytes at which a console log is rotated; a boot prints 20 KiB. */
const consoleLimit = 4 * 1024 ** 2

/** Where a machine's root folder is made. */
const rootOf = (name: string): string => `/dev/shm/${name}`

/** A shell's exit code in words: a code above 128 stands for the signal that ended the program. */
const endingOf = (code: number): string =>
  Object.entries(constants.signals).find(([, number]) => number === code - 128)?.[0] ??
  `exit code ${String(code)}`

const send = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal)
  } catch {
    // The process has ended meanwhile.
  }
}

const isRunning = (entry: Entry | undefined): entry is Entry =>
  entry !== undefined && entry.ended === undefined

/** A machine's kernel starts processes all the time, so this repeats until no new one is found. */
const signalAll = (entry: Entry | undefined, signal: 'SIGSTOP' | 'SIGCONT'): readonly number[] => {
  if (!isRunning(entry) || entry.child.pid === undefined) return []
  const done = new Set<number>()
  for (;;) {
    const fresh = familyOf(entry.child.pid).filter(({ pid }) => !done.has(pid))
    if (fresh.length === 0) return [...done]
    for (const { pid } of fresh) {
      done.add(pid)
      send(pid, signal)
    }
  }
}

const standsStill = (entry: Entry, all: readonly FoundProcess[]): boolean => {
  const { pid } = entry.child
  const family = pid === undefined || !isRunning(entry) ? [] : familyOf(pid, all)
  return family.some(({ state }) => state === 'T') && family.every(({ state }) => /^[TtZX]$/.test(state))
}

/** Runs the actions for one machine one after another: a start waits for the end of the previous run. */
class Turns {
  private readonly last = new Map<string, Promise<unknown>>()

  take<T>(name: string, act: () => T | Promise<T>): Promise<T> {
    const turn = (this.last.get(name) ?? Promise.resolve()).then(act)
    const quiet = turn
      .catch(() => undefined)
      .then(() => {
        if (this.last.get(name) === quiet) this.last.delete(name)
      })
    this.last.set(name, quiet)
    return turn
  }
}

export class Machines {
  readonly #bridge: Bridge
  readonly #say: (what: string, error: unknown) => void
  readonly #entries = new Map<string, Entry>()
  /** How each machine was last started, for clients that only have its power switch. */
  readonly #requests = new Map<string, StartRequest>()
  readonly #turns = new Turns()
  #lastStart = 0

  constructor(bridge: Bridge, say: (what: string, error: unknown) => void) {
    this.#bridge = bridge
    this.#say = say
  }

  /** Starts a machine unless it runs. */
  start(name: string, request: StartRequest): Promise<void> {
    return this.#turns.take(name, () => this.#start(name, request))
  }

  /** Starts a machine as it was started last. */
  startAgain(name: string): Promise<void> {
    return this.#turns.take(name, () => {
      const request = this.#requests.get(name)
      if (request) this.#start(name, request)
    })
  }

  /** @param run only this run of it: a later one continues */
  end(name: string, run?: number): Promise<void> {
    return this.#turns.take(name, () => this.#end(name, run))
  }

  /** Stops all processes of a machine, or lets them continue. @returns whether it runs */
  pause(name: string, signal: 'SIGSTOP' | 'SIGCONT'): Promise<boolean> {
    return this.#turns.take(name, () => signalAll(this.#entries.get(name), signal).length > 0)
  }

  list(): RunningMachine[] {
    const all = allProcesses()
    return [...this.#entries].map(([name, entry]) => ({
      name,
      running: isRunning(entry),
      argv: [...entry.argv, `mac=${entry.link[2]}`],
      started: entry.started,
      ...(entry.ended === undefined ? {} : { ended: entry.ended }),
      ...(standsStill(entry, all) ? { paused: true } : {}),
    }))
  }

  /** The power switches of all machines that were ever started. */
  switches(): { readonly name: string; readonly on: boolean }[] {
    return [...this.#requests.keys()].map((name) => ({ name, on: isRunning(this.#entries.get(name)) }))
  }

  #start(name: string, request: StartRequest): void {
    this.#requests.set(name, request)
    if (isRunning(this.#entries.get(name))) return
    const output = new BoundedLog(request.console, consoleLimit)
    const child = this.#spawn(name, request)
    const started = Math.max(Date.now(), this.#lastStart + 1)
    this.#lastStart = started
    const entry: Entry = { ...request, child, started }
    const failed = (error: unknown): void => this.#say(name, error)
    const keep = (text: Buffer): void => {
      try {
        output.write(text)
      } catch (error) {
        this.#say(`console of ${name}`, error)
      }
    }
    child.stdout?.on('data', keep).on('error', failed)
    child.stderr?.on('data', keep).on('error', failed)
    child.on('error', (error) => {
      entry.ended ??= error.message
    })
    // `close` rather than `exit`: by then its last output is in the log.
    child.on('close', (code, signal) => {
      entry.ended ??= signal ?? endingOf(code ?? 0)
      output.close()
    })
    this.#entries.set(name, entry)
  }

  /** Starts the process of a machine, which sees nothing of the host but what the request says. */
  #spawn(name: string, request: StartRequest): ChildProcess {
    const network = this.#bridge.plug(request.link, request.user)
    const root = rootOf(name)
    mkdirSync(root, { recursive: true })
    const { tap } = this.#bridge
    const { command, env } = confined([...request.argv, network], {
      root,
      binds: [
        { from: '/dev/null', to: '/dev/null', writable: true },
        ...(tap === undefined ? [] : [{ from: tap, to: '/dev/net/tun', writable: true }]),
        ...request.binds,
      ],
      ...(request.user === undefined ? {} : { user: request.user }),
      ...(tap === undefined ? { cable: request.link[1] } : {}),
    })
    // Each machine has a PID namespace: when its first process ends, the kernel ends all its helpers. And it has one
    // CPU: its kernel and its programs are processes that hand over to each other at every system call and never run
    // at the same time. A hand-over takes 11 microseconds on one CPU, and 14 to 32 across two, depending on load.
    return spawn('taskset', ['--cpu-list', String(request.cpu), ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env,
    })
  }

  /**
   * Ends a machine, and returns when all its processes are gone, since one of them holds the lock of its disks. They
   * are stopped first: a machine that is just starting may not be in its PID namespace yet, and would survive.
   */
  async #end(name: string, run: number | undefined): Promise<void> {
    const entry = this.#entries.get(name)
    if (!entry || (run !== undefined && entry.started !== run)) return
    const family = signalAll(entry, 'SIGSTOP')
    for (const pid of family) send(pid, 'SIGKILL')
    while (family.some(lives)) await delay(5)
    this.#entries.delete(name)
    rmSync(rootOf(name), { recursive: true, force: true })
  }
}
