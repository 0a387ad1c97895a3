/**
 * A scenario from its steady state to its steady state: look, write, break, wait, heal, look again, read back.
 * Whatever ends it, what was broken is undone and what is known is saved.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, Interrupted, LabError, messageOf } from '../error.js'
import type { DatabaseSpec, Lab, ScenarioSpec } from '../lab/lab.js'
import { runPlan } from '../plan/runner.js'
import type { Context, Plan } from '../context.js'
import type { RunFacts } from '../report/run.js'
import { type Client, ledgerClient } from './client.js'
import { type Clocks, keptClocks, measureClocks, ownClock } from '../fault/clock.js'
import { refusal } from '../fault/faults.js'
import { Injections } from './injection.js'
import { type JournalEntry, readJournal, refuseWhileFenced } from '../journal.js'
import { fencingAgent } from '../fencing/agent.js'
import type { Fenced, FenceMethod } from '../fencing/fence.js'
import { fencedSince } from '../fencing/process.js'
import { createLedger } from './ledger-file.js'
import {
  calm,
  judge,
  type Judgement,
  type LedgerRecord,
  markIn,
  media,
  type Medium,
  type ReadBack,
  recoveryOf,
  usualPause,
} from './ledger.js'
import { fileStore, rowStore, type Store } from './medium.js'
import { type DiskProof, putOnDisk } from './read-back.js'
import { type CheckFact, type Look, steadyState, type When } from './steady.js'
import { type Observation, timelineOf } from './timeline.js'
import { readJournals, type Watch, watchLab, witnesses } from './watch.js'

/** Milliseconds of an undisturbed ledger before the first fault. */
const baseline = 5000
/** Milliseconds to watch a fault that stops no write, where no budget says for how long. */
const shortestLook = 10_000
/** Milliseconds for a fencing agent to see that all is well: before that it fences nobody. */
const armingDeadline = 15_000
/** Seconds for each part of what comes after: the ledger's first row, answers after the heal, and reading it back. */
const answerDeadline = 60

export interface RunRequest {
  readonly scenario: ScenarioSpec
  readonly context: Context
  /** Like `context`, but not ended by Ctrl-C: with it, the lab is healed. */
  readonly healer: Context
  /** What the lab is when it is well, and how it gets there. */
  readonly plan: Plan
  /** Absolute path of the ledger, which is not there yet. */
  readonly ledgerPath: string
  readonly versions: Readonly<Record<string, string>>
  /** How a node that goes is fenced: by the lab's agent, or for the time of this run by this program; or not. */
  readonly fencing: { readonly by: 'agent' | 'run'; readonly method: FenceMethod } | undefined
  readonly notice: (text: string) => void
  /** Keeps what is known so far; called several times. */
  readonly save: (facts: RunFacts) => Promise<void>
}

/** @throws LabError where the scenario cannot be run at all; nothing was touched. */
const refuseImpossible = async ({ scenario, context }: RunRequest): Promise<DatabaseSpec> => {
  const { lab, provider } = context
  for (const spec of scenario.inject) {
    const why = refusal(provider, spec)
    if (why)
      throw new LabError('fault-impossible', `${scenario.name}: ${spec.fault}: ${why}`, {
        exitCode: exitCodes.usage,
      })
  }
  if (!lab.database)
    throw new LabError('no-database', `${lab.name} has no database, so nobody could tell what a fault did`, {
      hint: 'choose a lab with a database: lab list',
      exitCode: exitCodes.usage,
    })
  const off = (await provider.states(lab)).filter(({ status }) => status !== 'running')
  if (off.length > 0)
    throw new LabError(
      'not-up',
      `${lab.name}: not running: ${off.map(({ name }) => name).join(', ')}; a fault would prove nothing`,
      { hint: `lab up ${lab.name}` },
    )
  return lab.database
}

/** Name of the table, file, keyspace or znode that a run writes to: letters, digits and `_`. */
export const runName = (started: Date): string => `lab_run_${started.toISOString().replace(/\D/g, '')}`

/** Acknowledged writes of one medium. */
class MediumAnswers {
  /** By the ledger's clock, in milliseconds. */
  last = -Infinity
  /** Since when writes have been answered without a pause. */
  steadySince = Infinity

  take(ms: number): void {
    if (ms - this.last > usualPause) this.steadySince = ms
    this.last = ms
  }
}

/** Acknowledged writes, as the run needs them while it goes on. */
class Answers {
  readonly #of: Readonly<Record<Medium, MediumAnswers>> = {
    row: new MediumAnswers(),
    file: new MediumAnswers(),
  }
  #lastPod: string | undefined

  take(record: LedgerRecord): void {
    if (record.type !== 'acknowledged' || record.operation !== 'write') return
    this.#of[record.medium].take(record.ms)
    if (record.medium === 'row') this.#lastPod = record.server.pod
  }

  /** What has not acknowledged anything yet. */
  get missing(): readonly Medium[] {
    return (['row', 'file'] as const).filter((medium) => this.#of[medium].last === -Infinity)
  }

  /** Milliseconds since the last answer of the medium that has been silent for longer. */
  get silence(): number {
    return performance.now() - Math.min(this.#of.row.last, this.#of.file.last)
  }

  /** The database that answered last. */
  get lastPod(): string | undefined {
    return this.#lastPod
  }

  /** Whether writes to every medium are answered now, and were for a while, all of it after this moment. */
  calmSince(ms: number): boolean {
    return (
      this.silence < usualPause &&
      Object.values(this.#of).every(({ last, steadySince }) => last - Math.max(steadySince, ms) >= calm)
    )
  }
}

const until = async (wanted: () => boolean, milliseconds: number, signal: AbortSignal): Promise<boolean> => {
  const deadline = performance.now() + milliseconds
  while (!wanted()) {
    if (performance.now() > deadline) return false
    await delay(50, undefined, { signal }).catch(() => {
      throw new Interrupted()
    })
  }
  return true
}

/** What a volume's events say nothing about: whose volume it is. It is that of the pod that last came to the node. */
const withPods = (seen: readonly Observation[], volumes: readonly Observation[]): readonly Observation[] =>
  volumes.map((volume) => {
    const pod = seen.findLast(
      ({ type, node }) => type === 'replacement-scheduled' && node === volume.node,
    )?.pod
    return pod === undefined ? volume : { ...volume, pod }
  })

/** Whether a record is a write that the database acknowledged: a takeover is that of the database. */
const isRowWritten = (record: LedgerRecord): record is Extract<LedgerRecord, { type: 'acknowledged' }> =>
  record.type === 'acknowledged' && record.operation === 'write' && record.medium === 'row'

const writeObservations = (records: readonly LedgerRecord[]): readonly Observation[] =>
  records.flatMap((record): Observation[] =>
    isRowWritten(record)
      ? [
          {
            type: 'write-acknowledged',
            at: record.at,
            ms: record.ms,
            source: 'operator',
            detail: `row ${String(record.seq)} acknowledged by ${record.server.pod} on ${record.server.node}`,
            pod: record.server.pod,
            node: record.server.node,
          },
        ]
      : [],
  )

/** By this host's clock; where the agent of the lab saw it, by nothing else. */
const fenceSeen = ({ at, node, detail }: Fenced): Observation => ({
  type: 'node-fenced',
  at,
  source: 'operator',
  node,
  detail,
})

/** A run while it goes on: what is known, and what will have to be undone. */
class Run {
  readonly #request: RunRequest
  readonly #started = new Date()
  readonly #begun = performance.now()
  readonly #records: LedgerRecord[] = []
  readonly #answers = new Answers()
  readonly #ending = new AbortController()
  readonly #faults: Injections
  readonly #own: Observation[] = []
  #fenced: readonly Observation[] = []
  #checks: readonly CheckFact[] = []
  #looks: readonly Look[] = []
  #interrupted = true
  #volumes: readonly Observation[] = []
  /** What the watches saw of the faults, once they are over. */
  #watched: readonly Observation[] | undefined
  #clocks: Clocks = {}
  #diskProof: DiskProof | undefined
  #readBack: Readonly<Partial<Record<Medium, readonly ReadBack[]>>> = {}
  #watch: Watch | undefined

  constructor(request: RunRequest) {
    this.#request = request
    this.#faults = new Injections(this.#lab, this.#by)
  }

  /** What the journal calls this run. */
  get #by(): string {
    return `lab run ${this.#lab.name} ${this.#request.scenario.name}`
  }

  get #lab(): Lab {
    return this.#request.context.lab
  }

  facts(): RunFacts {
    const { scenario, context, versions, fencing } = this.#request
    const [first] = this.#faults.all
    const injected = first?.injected !== undefined
    const seen = [
      ...(this.#watched ?? this.#watch?.observations ?? []),
      ...(first?.injected
        ? [
            {
              type: 'fault',
              at: first.injected.toISOString(),
              ms: first.injectedMs,
              source: 'operator',
              detail: first.fault.detail,
            } satisfies Observation,
          ]
        : []),
      ...this.#own,
      ...this.#fenced,
    ]
    return {
      lab: this.#lab.name,
      scenario,
      started: this.#started,
      seconds: (performance.now() - this.#begun) / 1000,
      interrupted: this.#interrupted,
      provider: context.provider.name,
      failover: this.#lab.failover,
      volume: this.#lab.database?.volume.kind,
      // What was done in this run, whatever the lab file wishes for.
      fencing: fencing?.method ?? 'none',
      versions,
      faults: this.#faults.facts(),
      checks: this.#checks,
      looks: this.#looks,
      recovery: injected
        ? {
            ...(scenario.heal === 'deadline' ? {} : { itself: recoveryOf(this.#records, 'itself') }),
            healed: recoveryOf(this.#records, 'heal'),
          }
        : undefined,
      diskProof: this.#diskProof,
      timeline: timelineOf(
        [...seen, ...withPods(seen, this.#volumes), ...writeObservations(this.#records)],
        this.#clocks,
      ),
      ledger:
        this.#records.length === 0 ? undefined : { records: this.#records, judgement: this.#judgement() },
    }
  }

  #judgement(): Judgement {
    return judge(this.#records, this.#readBack.row, this.#readBack.file)
  }

  #save(): Promise<void> {
    return this.#request.save(this.facts())
  }

  async #look(when: When, context: Context): Promise<boolean> {
    const steady = await steadyState(this.#request.plan, when, context)
    this.#looks = [...this.#looks, ...steady.looks]
    this.#checks = [...this.#checks, ...steady.checks]
    return steady.ok
  }

  /** The read-back ended the database once more: of that look, only what is wrong is news. */
  async #lookAgain(): Promise<void> {
    const { plan, healer } = this.#request
    const steady = await steadyState(plan, 'after', healer)
    this.#looks = [...this.#looks, ...steady.looks]
    if (!steady.ok) this.#checks = [...this.#checks, ...steady.checks.filter(({ ok }) => !ok)]
  }

  /**
   * Fences what goes, where that is this program's business.
   * @returns how to end it, once it watches the node of the database
   */
  async #fence(watch: Watch): Promise<() => Promise<void>> {
    const { fencing, healer, context, notice, scenario } = this.#request
    if (fencing?.by !== 'run') return () => Promise.resolve()
    const ending = new AbortController()
    const watched = new Set<string>()
    const agent = fencingAgent(
      healer,
      {
        method: fencing.method,
        by: `lab run ${this.#lab.name} ${scenario.name}`,
        suspended: () => Promise.resolve(false),
        fenced: (seen) => {
          this.#fenced = [...this.#fenced, { ...fenceSeen(seen), ms: performance.now() }]
        },
        notice,
        looked: (names) => {
          for (const name of names) watched.add(name)
        },
      },
      ending.signal,
    )
    const end = async (): Promise<void> => {
      ending.abort()
      await agent
    }
    const server = watch.server()
    if (!(await until(() => server !== undefined && watched.has(server), armingDeadline, context.signal))) {
      await end()
      throw new LabError(
        'not-watched',
        `${server ?? 'the node of the database'} is not ready to be watched`,
        {
          hint: `lab verify ${this.#lab.name}`,
        },
      )
    }
    return end
  }

  /** @returns whether every fault was seen to act */
  async #inject(client: Client, watch: Watch): Promise<boolean> {
    const { scenario, context, notice } = this.#request
    const server = watch.server()
    if (server === undefined)
      throw new LabError('no-server', `nobody knows where ${this.#lab.name}'s database runs`)
    for (const spec of scenario.inject) await this.#faults.aim(context, spec, server)
    for (const { fault } of this.#faults.all) await fault.possible(context)
    for (const [index, injection] of this.#faults.all.entries()) {
      const { fault, detail } = injection.fault
      const acts = await this.#faults.inject(context, injection, async () => {
        notice(`${fault}: ${detail}`)
        if (index === 0) await client.mark('fault')
      })
      if (!acts) {
        notice(`${fault} is not seen to act: ${injection.error ?? injection.acting?.saw ?? ''}`)
        return false
      }
    }
    await client.mark('acting')
    return true
  }

  #undo(which: (entry: JournalEntry) => boolean): Promise<void> {
    return this.#faults.undo(this.#request.healer, which)
  }

  /** Waits until the lab has got over it, or the deadline; faults that last only for a while end meanwhile. */
  async #outcome(client: Client, watch: Watch): Promise<void> {
    const { scenario, context, notice } = this.#request
    const { signal } = context
    const begun = this.#faults.all[0]?.injectedMs ?? performance.now()
    // Whatever was acknowledged before all faults were seen to act says nothing about what comes after them.
    const acting = performance.now()
    const former = this.#former()
    const { expect } = scenario
    const longest = Math.max(
      shortestLook,
      ...[expect.writeGap, expect.readGap, expect.notReady, expect.takeover].map((budget) => budget ?? 0),
    )
    const lasting = this.#faults.all.filter(({ fault }) => fault.for !== undefined)
    const lasted = lasting.map(async (injected) => {
      const since = performance.now() - (injected.injectedMs ?? begun)
      await delay(Math.max(0, (injected.fault.for ?? 0) - since), undefined, { signal })
      notice(`${injected.fault.fault}: its time is over`)
      await this.#undo(({ id }) => injected.ids.includes(id))
      await this.#faults.seeGone(this.#request.healer, (one) => one === injected)
    })
    const overdue = Promise.all(lasted)
    overdue.catch(() => undefined)
    const seenNotReady = (): boolean =>
      expect.notReady === undefined || watch.observations.some(({ type }) => type === 'node-not-ready')
    const recovered = (): boolean => {
      if (lasting.some(({ gone }) => gone === undefined)) return false
      if (!this.#answers.calmSince(acting) || !seenNotReady()) return false
      const moved = this.#answers.lastPod !== former
      return moved || (expect.takeover === undefined && performance.now() - begun >= longest)
    }
    const over = await until(
      scenario.heal === 'deadline' ? () => false : recovered,
      scenario.deadline - (performance.now() - begun),
      signal,
    )
    await client.mark('healing')
    if (over) await overdue
    const length = `${String(scenario.deadline / 1000)} s`
    if (over) notice('writes are answered again')
    else if (scenario.heal === 'deadline') notice(`the fault has lasted its ${length}`)
    else notice(`the lab has not got over it in ${length}`)
  }

  /** The pod that answered before the fault. */
  #former(): string | undefined {
    const fault = this.#records.find((record) => record.type === 'mark' && record.mark === 'fault')
    return this.#records.filter(isRowWritten).findLast(({ ms }) => ms <= (fault?.ms ?? 0))?.server.pod
  }

  async #heal(client: Client | undefined): Promise<void> {
    const { healer, plan, notice } = this.#request
    // Whatever is answered from now on may be the heal's doing.
    if (client && !markIn(this.#records, 'healing')) await client.mark('healing')
    // A node that lost its power and was fenced for it boots once: when the fence is undone.
    const fenced = (await readJournal(this.#lab)).filter(({ fault }) => fault === 'fence')
    await this.#undo(
      ({ undo, fault }) =>
        fault !== 'fence' &&
        !(undo.do === 'switch-on' && fenced.some((entry) => entry.undo.machine === undo.machine)),
    )
    await this.#undo(() => true)
    this.#own.push({
      type: 'healed',
      at: new Date().toISOString(),
      ms: performance.now(),
      source: 'operator',
      detail: 'faults undone',
    })
    await client?.mark('healed')
    notice('healing: bringing the lab back to what its file says')
    await refuseWhileFenced(this.#lab)
    await runPlan(plan, 'apply', healer, () => undefined)
    // What needed the lab to be up: a node is uncordoned by an API server.
    await this.#undo(() => true)
    await this.#faults.seeGone(healer)
    for (const { fault, undo } of await readJournal(this.#lab))
      notice(`not undone: ${fault} on ${undo.machine}: ${undo.do}`)
  }

  /** What cannot be read back is unknown: that is a verdict, and no failure of the run. */
  async #readAllBack(stores: readonly Store[]): Promise<void> {
    const { notice, healer } = this.#request
    const soon = AbortSignal.timeout(answerDeadline * 1000 * (healer.provider.patience ?? 1))
    const why = (error: unknown): string => (error instanceof Interrupted ? 'no answer' : messageOf(error))
    await Promise.all(
      stores.map(async (store) => {
        const { medium } = store
        try {
          const there = await store.readBack(soon)
          this.#readBack = { ...this.#readBack, [medium]: there }
        } catch (error) {
          notice(`${media[medium]} could not be read back: ${why(error)}`)
        }
      }),
    )
    // What is not as it should be stays, to be looked at.
    if (this.#judgement().findings.length > 0 || this.#diskProof?.fileSystem?.ok === false) return
    await Promise.all(
      stores
        .filter(({ medium }) => this.#readBack[medium])
        .map((store) =>
          store.remove(soon).catch((error: unknown) => {
            notice(`what this run wrote to ${media[store.medium]} could not be removed: ${why(error)}`)
          }),
        ),
    )
  }

  /** What the machines saw, and whose clock can be believed; what is seen from now on is no part of the fault. */
  async #date(): Promise<void> {
    const { healer } = this.#request
    this.#watched = [...(this.#watch?.observations ?? [])]
    const { operator, ...before } = this.#clocks
    const { observations, clocks } = await readJournals(healer, this.#lab, this.#begun, before)
    this.#volumes = observations
    const own = operator ? keptClocks({ operator }, { operator: ownClock() }) : {}
    const set = this.#faults.all.flatMap(({ fault }) => (fault.fault === 'clock-skew' ? fault.on : []))
    this.#clocks = {
      ...own,
      // Put back by the heal, it looks as if nothing had happened.
      ...Object.fromEntries(Object.entries(clocks).filter(([name]) => !set.includes(name))),
    }
  }

  async run(database: DatabaseSpec): Promise<RunFacts> {
    const { context, healer, ledgerPath, notice } = this.#request
    const { signal } = context
    await this.#save()
    notice('steady state: asking every check')
    if (!(await this.#look('before', context))) {
      this.#interrupted = signal.aborted
      await this.#save()
      if (signal.aborted) throw new Interrupted()
      return this.facts()
    }
    const ledger = await createLedger(ledgerPath)
    const watch = watchLab(healer, database, this.#ending.signal)
    this.#watch = watch
    const medium = {
      reach: context,
      database,
      run: runName(this.#started),
      nodeOf: (pod: string) => watch.nodeOf(pod),
    }
    const stores = [rowStore(medium), fileStore(medium)]
    const client = ledgerClient({
      stores,
      ledger,
      seen: (record) => {
        this.#records.push(record)
        this.#answers.take(record)
      },
    })
    let problem: unknown
    let injected = false
    let endFencing = (): Promise<void> => Promise.resolve()
    try {
      const soon = AbortSignal.any([signal, AbortSignal.timeout(answerDeadline * 1000)])
      await until(() => watch.server() !== undefined, answerDeadline * 1000, signal)
      for (const store of stores)
        await store.create(soon).catch((error: unknown) => {
          signal.throwIfAborted()
          throw new LabError(
            'no-answer',
            `${media[store.medium]} cannot be written to: ${messageOf(error)}`,
            {
              hint: `lab report ${this.#lab.name}`,
              exitCode: exitCodes.unknown,
            },
          )
        })
      await client.mark('begin')
      client.start()
      if (!(await until(() => this.#answers.missing.length === 0, answerDeadline * 1000, signal)))
        throw new LabError(
          'no-answer',
          `${database.name}: ${this.#answers.missing.map((silent) => media[silent]).join(' and ')} acknowledged nothing within ${String(answerDeadline)} s`,
          { hint: `lab report ${this.#lab.name}`, exitCode: exitCodes.unknown },
        )
      notice(`ledger: writing; ${String(baseline / 1000)} s undisturbed`)
      await delay(baseline, undefined, { signal })
      this.#clocks = { operator: ownClock(), ...(await measureClocks(context, witnesses(this.#lab))) }
      endFencing = await this.#fence(watch)
      injected = true
      const acts = await this.#inject(client, watch)
      await this.#save()
      // What did not happen proves nothing, however long one waits.
      if (acts) await this.#outcome(client, watch)
    } catch (error) {
      problem = error
    }
    try {
      await endFencing()
      if (this.#request.fencing?.by === 'agent')
        this.#fenced = (await fencedSince(this.#lab, this.#started)).map(fenceSeen)
      if (injected) await this.#heal(client)
      if (!signal.aborted) {
        notice('steady state: asking every check again')
        await this.#look('after', healer)
        const healed = markIn(this.#records, 'healed')?.ms
        const patience = answerDeadline * 1000 * (healer.provider.patience ?? 1)
        if (healed !== undefined) await until(() => this.#answers.calmSince(healed), patience, healer.signal)
      }
      await client.mark('end')
    } catch (error) {
      problem ??= error
    }
    await client.stop().catch((error: unknown) => (problem ??= error))
    await ledger.close()
    try {
      await this.#date()
    } catch (error) {
      problem ??= error
    }
    if (!signal.aborted) {
      notice('reading back: the database ends, its disk is checked, and another one reads it')
      this.#diskProof = await putOnDisk(healer, database, this.#by)
    }
    await this.#readAllBack(stores)
    if (!signal.aborted) await this.#lookAgain()
    this.#ending.abort()
    this.#interrupted = signal.aborted || problem !== undefined
    await this.#save()
    if (signal.aborted) throw new Interrupted()
    if (problem !== undefined) throw problem as Error
    return this.facts()
  }
}

/** Runs one scenario. @returns what is to be reported, already saved */
export const runScenario = async (request: RunRequest): Promise<RunFacts> => {
  const database = await refuseImpossible(request)
  return new Run(request).run(database)
}
