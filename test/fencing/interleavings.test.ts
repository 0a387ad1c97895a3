/**
 * A fence and its undo in every order: agents, `lab heal`, answers and kills interleave at every await.
 *
 * The target, the API server, the provider, the journal and the locks are a model, because the real ones cannot be
 * made to answer in a chosen order. Each call is two events, its arrival and its answer; a killed process waits for
 * ever, but the requests that it sent before still arrive. The code of fences and undos is the real one.
 *
 * Over 400 lines because the model and what is played in it cannot be understood separately.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import fc, { type Scheduler } from 'fast-check'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { conflict, LabError } from '../../src/error.js'
import { attemptFence, type FenceMethod, settleFences } from '../../src/fencing/fence.js'
import type { JournalEntry, Undo } from '../../src/journal.js'
import { fencesIn } from '../../src/journal.js'
import { loadLab, registry } from '../../src/registry.js'
import type { Context } from '../../src/context.js'
import { undoAll } from '../../src/trial/undo.js'

const lab = await loadLab('iscsi-ha')
const node = 'worker1'

/** A process of the model: the agent, a second one, a command. */
class Process {
  dead = false
  readonly held = new Set<string>()
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

const inProcess = new AsyncLocalStorage<Process>()
const never = new Promise<never>(() => undefined)

class World {
  readonly scheduler: Scheduler
  readonly log: string[] = []
  journal: JournalEntry[] = []
  readonly locks = new Map<string, Process>()
  readonly waiting: (() => void)[] = []
  /** The run of the node's machine; undefined: it is off. */
  run: number | undefined = 1
  runs = 1
  targetOn = true
  targetFenced: string | undefined
  readonly targetUndone = new Set<string>()
  /** Whether the target has an access list for the node. */
  access = true
  version = 1
  tainted = false
  /** A violation, recorded as soon as it happened. */
  harm: string | undefined
  #notes = 0
  #asked = 0
  readonly #delays: readonly number[]
  readonly without: Guard | undefined

  /** @param delays the least numbers of other events before each request arrives, one after the other */
  constructor(scheduler: Scheduler, delays: readonly number[], without?: Guard) {
    this.scheduler = scheduler
    this.#delays = delays
    this.without = without
  }

  /** This many events happen first, and more if others get their turn. */
  async pass(events: number): Promise<void> {
    for (let count = 0; count < events; count++)
      await this.scheduler.schedule(Promise.resolve(), 'time goes by')
  }

  /** An event of the model, at a moment that the scheduler chooses. A killed process does not get that far. */
  async #event(what: string): Promise<void> {
    const mine = inProcess.getStore()
    await this.scheduler.schedule(Promise.resolve(), what)
    if (mine?.dead) await never
  }

  /** A request of a process to the world: it arrives even if the process was killed meanwhile. */
  async ask<T>(what: string, happen: () => T): Promise<T> {
    const mine = inProcess.getStore()
    if (mine?.dead) await never
    const name = `${mine?.name ?? '?'}: ${what}`
    // Some requests take long: a whole heal may happen meanwhile.
    await this.pass(this.#delays[(this.#asked += 1) % this.#delays.length] ?? 0)
    await this.scheduler.schedule(Promise.resolve(), `${name} arrives`)
    let answer: { readonly value: T } | { readonly error: unknown }
    try {
      answer = { value: happen() }
      this.log.push(name)
    } catch (error) {
      answer = { error }
      this.log.push(`${name} refused`)
    }
    await this.#event(`${name} is answered`)
    if ('error' in answer) throw answer.error as Error
    return answer.value
  }

  /** Whether the node can write: it runs, and the target gives it access. */
  get mayWrite(): boolean {
    return this.run !== undefined && this.access && this.targetOn
  }

  serve(): void {
    this.access = this.targetFenced === undefined
  }

  throwOut(id: string): number {
    if (!this.targetOn) throw new Error('no answer')
    if (this.targetUndone.has(id) && this.without !== 'target') return 4
    this.targetFenced = id
    this.access = false
    return 0
  }

  letIn(id: string): void {
    if (!this.targetOn) throw new Error('no answer')
    this.targetUndone.add(id)
    if (this.targetFenced === id) this.targetFenced = undefined
    this.serve()
  }

  note(by: string, undos: readonly Undo[]): JournalEntry[] {
    const fresh = undos.map((undo) => ({
      id: `note-${String((this.#notes += 1))}`,
      kind: 'fence' as const,
      by,
      fault: 'fence',
      undo,
    }))
    this.journal = [...this.journal, ...fresh]
    return fresh
  }

  kill(victim: Process): void {
    victim.dead = true
    this.log.push(`${victim.name} is killed`)
    // The process may have been dead already, and another one may hold its locks.
    for (const path of victim.held) if (this.locks.get(path) === victim) this.locks.delete(path)
    for (const wake of this.waiting.splice(0)) wake()
  }
}

let world: World

vi.mock('../../src/lock.js', () => ({
  takeLock: async (path: string) => {
    const mine = inProcess.getStore() ?? new Process('?')
    await world.ask(`asks for ${path.split('/').at(-1) ?? ''}`, () => undefined)
    while (world.locks.has(path) && world.without !== 'lock')
      await new Promise<void>((resolve) => world.waiting.push(resolve))
    if (mine.dead) await never
    world.locks.set(path, mine)
    mine.held.add(path)
    return async () => {
      if (mine.dead) await never
      mine.held.delete(path)
      world.locks.delete(path)
      for (const wake of world.waiting.splice(0)) wake()
    }
  },
}))

vi.mock('../../src/journal.js', async (original) => ({
  ...(await original<object>()),
  readJournal: () => world.ask('reads the journal', () => [...world.journal]),
  noteUndo: (_lab: string, by: string, _fault: string, undos: readonly Undo[]) =>
    world.ask('notes the undo', () => world.note(by, undos)),
  strike: (_lab: string, { id }: JournalEntry) =>
    world.ask(`strikes ${id}`, () => {
      world.journal = world.journal.filter((entry) => entry.id !== id)
    }),
}))

// The files that a boot writes to a machine do not matter here.
vi.mock('../../src/steps/machines.js', () => ({
  fileOptions: () => Promise.resolve({}),
  boot: (_lab: unknown, machine: { name: string }) => ({
    apply: (context: Context) => context.provider.machines!.start(lab, machine as never, []),
  }),
}))

const contextOf = (signal: AbortSignal): Context =>
  ({
    lab,
    signal,
    provider: {
      states: () =>
        world.ask('asks which machines run', () => [
          {
            name: node,
            status: world.run === undefined ? 'stopped' : 'running',
            detail: `run ${String(world.run)}`,
          },
          { name: 'target', status: world.targetOn ? 'running' : 'stopped', detail: '' },
        ]),
      power: {
        cut: (_lab: unknown, name: string, only?: { run: string }) =>
          world.ask(`cuts ${name}${only ? ` of ${only.run}` : ''}`, () => {
            const meant = !only || only.run === `run ${String(world.run)}` || world.without === 'provider'
            if (name === node && meant) world.run = undefined
          }),
      },
      machines: {
        start: (_lab: unknown, { name }: { name: string }) =>
          world.ask(`starts ${name}`, () => {
            if (name === node) world.run ??= world.runs += 1
            else if (!world.targetOn) {
              world.targetOn = true
              world.serve()
            }
          }),
      },
    },
    kubectl: {
      run: ([verb, , , , , patch = '']: readonly string[]) => {
        if (verb === 'get')
          return world.ask('reads the node', () =>
            JSON.stringify({
              metadata: { resourceVersion: String(world.version) },
              spec: world.tainted
                ? { taints: [{ key: 'node.kubernetes.io/out-of-service', effect: 'NoExecute' }] }
                : {},
            }),
          )
        const wanted = JSON.parse(patch) as {
          metadata: { resourceVersion: string }
          spec: { taints: readonly object[] | null }
        }
        return world.ask(wanted.spec.taints ? 'taints the node' : 'takes the taint off', () => {
          if (wanted.metadata.resourceVersion !== String(world.version) && world.without !== 'API server')
            throw new LabError(conflict, 'the object has been modified')
          world.version += 1
          const taint = wanted.spec.taints !== null
          // From here on, Kubernetes replaces the pods: the old node must not write any more.
          if (taint && !world.tainted && world.mayWrite)
            world.harm ??= `tainted while ${node} could write: ${world.log.slice(-12).join('; ')}`
          world.tainted = taint
          return ''
        })
      },
    },
    machine: (name: string) => {
      const said = (text: string): { exitCode: number; stderr: string } => {
        const fence = /printf %s (note-\d+) >/.exec(text)?.[1]
        if (fence !== undefined) return { exitCode: world.throwOut(fence), stderr: '' }
        world.letIn(/unfenced\/(note-\d+)/.exec(text)?.[1] ?? '')
        return { exitCode: 0, stderr: '' }
      }
      const word = (text: string): string =>
        text.includes('printf %s note-') ? 'throws it out' : 'lets it in'
      return {
        try: ({ text }: { text: string }) => world.ask(`${name} ${word(text)}`, () => said(text)),
        run: ({ text }: { text: string }) =>
          world.ask(`${name} ${word(text)}`, () => {
            said(text)
            return ''
          }),
      }
    },
  }) as unknown as Context

/** Whether a command that changes the lab holds its lock. */
let changing: Process | undefined
const suspended = (): boolean => changing !== undefined && !changing.dead

/** What the agent does about one node, as often as a real agent would in a minute. */
const agent = async (method: FenceMethod, signal: AbortSignal, confirmed: Set<string>): Promise<void> => {
  for (let round = 0; round < 3; round++) {
    const done = await attemptFence(
      contextOf(signal),
      {
        node,
        method,
        by: 'the agent',
        why: (noted) =>
          world.ask('looks whether that is still wanted', () => {
            if (suspended()) return undefined
            if (noted) return noted.harm && !confirmed.has(noted.harm.id) ? 'begun before' : undefined
            return round === 0 ? 'not ready' : undefined
          }),
      },
      signal,
    ).catch(() => undefined)
    if (done?.id !== undefined) confirmed.add(done.id)
  }
}

/** `lab heal`, `up` and the end of a run: they hold the lab's lock and undo the entries of the journal. */
const heal = async (mine: Process): Promise<void> => {
  while (suspended()) await world.ask('waits for the lab', () => undefined)
  changing = mine
  const { signal } = new AbortController()
  await settleFences(lab, signal)
  await undoAll(contextOf(signal), registry)
  changing = undefined
}

/** Everything that was done to the node has its undo in the journal. */
const undone = (): string[] => {
  const notes = world.journal.map(({ undo }) => undo.do)
  return [
    ...(world.harm === undefined ? [] : [world.harm]),
    ...(!world.access && !notes.includes('readmit') ? ['no access, and no undo is recorded'] : []),
    ...(world.tainted && !notes.includes('untaint') ? ['tainted, and no undo is recorded'] : []),
    ...(world.run === undefined && !notes.some((what) => what === 'boot-afresh' || what === 'readmit')
      ? ['off, and no undo is recorded']
      : []),
  ]
}

const isWhole = (): string[] => [
  ...(world.journal.length > 0 ? [`in the journal: ${world.journal.map(({ undo }) => undo.do).join()}`] : []),
  ...(world.access ? [] : ['no access']),
  ...(world.tainted ? ['tainted'] : []),
  ...(world.run === undefined ? ['off'] : []),
]

interface Plan {
  readonly method: FenceMethod
  /** Heals start one after the other, each this many events after the one before. */
  readonly heals: readonly number[]
  readonly second: boolean
  /** Which process is killed, and after how many events. */
  readonly kills: readonly { readonly who: 'agent' | 'second' | 'heal'; readonly after: number }[]
  /** The agent's attempt is aborted after this many events. */
  readonly timeout: number | undefined
  /** The target loses its power after this many events, and is switched on later. */
  readonly cutTarget: number | undefined
  readonly delays: readonly number[]
}

const moment = fc.integer({ min: 0, max: 50 })

/** The agent is killed while one of its first requests is in transit, which takes as long as a heal. */
const leftBehind = (method?: FenceMethod) =>
  fc.record<Plan>({
    method: method === undefined ? fc.constantFrom<FenceMethod>('storage', 'power') : fc.constant(method),
    heals: fc.tuple(fc.integer({ min: 10, max: 30 })),
    second: fc.constant(false),
    kills: fc.tuple(
      fc.record({ who: fc.constant('agent' as const), after: fc.integer({ min: 5, max: 25 }) }),
    ),
    timeout: fc.constant(undefined),
    cutTarget: fc.constant(undefined),
    delays: fc
      .integer({ min: 3, max: 9 })
      .map((late) => Array.from({ length: 60 }, (_, index) => (index === late ? 300 : 0))),
  })

const anything = fc.record<Plan>({
  method: fc.constantFrom<FenceMethod>('storage', 'power'),
  heals: fc.array(moment, { maxLength: 2 }),
  second: fc.boolean(),
  kills: fc.array(
    fc.record({ who: fc.constantFrom('agent' as const, 'second' as const, 'heal' as const), after: moment }),
    { maxLength: 2 },
  ),
  timeout: fc.option(moment, { nil: undefined }),
  cutTarget: fc.option(moment, { nil: undefined }),
  delays: fc.array(fc.constantFrom(0, 0, 0, 0, 20, 200), { minLength: 1, maxLength: 40 }),
})

const spawn = (mine: Process, body: () => Promise<void>): void => {
  inProcess.run(mine, body).catch(() => undefined)
}

/** Runs until nothing happens any more; timers of the code itself are waited for, too. */
const settle = async (scheduler: Scheduler): Promise<void> => {
  for (let quiet = 0; quiet < 3;) {
    if (scheduler.count() === 0) quiet += 1
    else {
      quiet = 0
      await scheduler.waitIdle()
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Removes a guard, to check that the model notices. */
type Guard = 'target' | 'API server' | 'provider' | 'lock'

const play = async (scheduler: Scheduler, plan: Plan, without?: Guard): Promise<void> => {
  world = new World(scheduler, plan.delays, without)
  changing = undefined
  const processes = { agent: new Process('agent'), second: new Process('second'), heal: new Process('heal') }
  const bounded = new AbortController()
  const confirmed = new Set<string>()
  spawn(processes.agent, () => agent(plan.method, bounded.signal, confirmed))
  if (plan.second) spawn(processes.second, () => agent(plan.method, new AbortController().signal, confirmed))
  spawn(processes.heal, async () => {
    for (const after of plan.heals) {
      await world.pass(after)
      await heal(processes.heal)
    }
  })
  const later = (events: number, happen: () => void): void => {
    world.pass(events + 1).then(happen, () => undefined)
  }
  for (const { who, after } of plan.kills) later(after, () => world.kill(processes[who]))
  if (plan.timeout !== undefined) later(plan.timeout, () => bounded.abort())
  if (plan.cutTarget !== undefined)
    later(plan.cutTarget, () => {
      world.targetOn = false
      world.access = false
      later(20, () => {
        if (world.targetOn) return
        world.targetOn = true
        world.serve()
      })
    })
  await settle(scheduler)
  expect(undone(), world.log.join('\n')).toEqual([])
  // No process works any more, and somebody runs `lab heal`: late requests have arrived by then, or arrive during it.
  const last = new Process('last heal')
  spawn(last, () => heal(last))
  await settle(scheduler)
  expect(world.harm, world.log.join('\n')).toBeUndefined()
  expect(isWhole(), world.log.join('\n')).toEqual([])
}

beforeEach(() => {
  vi.stubEnv('LAB_STATE', '/nowhere')
})

describe('a fence and its undo', () => {
  it('every interleaving of agents, heals, kills and answers leaves the lab unharmed, or fenced with its undo recorded', async () => {
    const plans = fc.oneof(anything, leftBehind())
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), plans, (scheduler, plan) => play(scheduler, plan)),
      { numRuns: 1500, endOnFailure: false },
    )
  }, 480_000)

  it.each<[Guard, FenceMethod]>([
    ['target', 'storage'],
    ['API server', 'storage'],
    ['provider', 'power'],
    ['lock', 'storage'],
  ])(
    'the model detects an interleaving that breaks this when the %s is removed',
    async (guard, method) => {
      const plans = guard === 'lock' ? fc.oneof(anything, leftBehind(method)) : leftBehind(method)
      const { failed } = await fc.check(
        fc.asyncProperty(fc.scheduler(), plans, (scheduler, plan) => play(scheduler, plan, guard)),
        { numRuns: 3000, endOnFailure: true },
      )
      expect(failed).toBe(true)
    },
    480_000,
  )

  it('a node that only has its taint left to undo does not count as fenced', () => {
    const entry = (id: string, undo: Undo): JournalEntry => ({
      id,
      kind: 'fence',
      by: 'x',
      fault: 'fence',
      undo,
    })
    const only = fencesIn([entry('1', { do: 'untaint', machine: node })]).get(node)
    expect(only?.harm).toBeUndefined()
    const whole = fencesIn([
      entry('1', { do: 'untaint', machine: node }),
      entry('2', { do: 'readmit', machine: node, targets: ['target'] }),
    ]).get(node)
    expect(whole?.harm?.id).toBe('2')
  })
})
