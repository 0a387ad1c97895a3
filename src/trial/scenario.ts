/**
 * A scenario from steady state to steady state: check, write, break, wait, heal, check again, read back. However it
 * ends, what was broken is undone and what is known is saved.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { until } from './until.js'
import { exitCodes, Interrupted, LabError, messageOf } from '../error.js'
import type { DatabaseSpec, Lab, ScenarioSpec } from '../lab/lab.js'
import { Answers, isRowWritten, withPods, writeObservations } from './answers.js'
import type { CommonFacts, Facts, ScenarioFacts } from './facts.js'
import { type Body, refuseUnlessUp, Trial, type TrialRequest } from './trial.js'
import { type Client, ledgerClient, runName } from './client.js'
import { type Clocks, keptClocks, measureClocks, ownClock } from '../fault/clock.js'
import { fenceMeanwhile, fenceSeen } from './fence-meanwhile.js'
import { faultNamed, type Injections } from './injection.js'
import { type JournalEntry, readJournal } from '../journal.js'
import { switchingOn } from '../fault/power.js'
import type { FenceMethod } from '../fencing/fence.js'
import { fencedSince } from '../fencing/process.js'
import { createLedger, type LedgerFile } from './ledger-file.js'
import { judge, type Judgement } from './judge.js'
import { type LedgerRecord, markIn, media, type Medium, type ReadBack } from './ledger.js'
import { recoveryOf } from './recovery.js'
import { fileStore, rowStore, type Store } from './medium.js'
import { type DiskProof, putOnDisk } from './read-back.js'
import { type Observation, timelineOf } from './timeline.js'
import { readJournals, type Watch, watchLab, witnesses } from './watch.js'

/** Milliseconds of undisturbed writing before the first fault. */
const baseline = 5000
/** Milliseconds to observe a fault that stops no write, if no limit implies a duration. */
const shortestLook = 10_000
/** Seconds for each later phase: the ledger's first row, answers after the heal, and reading back. */
const answerDeadline = 60

export interface ScenarioRequest extends TrialRequest {
  readonly scenario: ScenarioSpec
  /** Who fences a lost node: the lab's agent, this program for the duration of the run, or nobody. */
  readonly fencing: { readonly by: 'agent' | 'run'; readonly method: FenceMethod } | undefined
}

/** @throws LabError if the scenario cannot be run at all; nothing was touched */
const refuse = async ({ scenario, context, registry }: ScenarioRequest): Promise<DatabaseSpec> => {
  const { lab, provider } = context
  for (const { fault } of scenario.inject) {
    const why = faultNamed(registry, fault).refusal?.(provider)
    if (why !== undefined)
      throw new LabError('fault-impossible', `${scenario.name}: ${fault}: ${why}`, {
        exitCode: exitCodes.usage,
      })
  }
  if (!lab.database)
    throw new LabError('no-database', `${lab.name} has no database, so nobody could tell what a fault did`, {
      hint: 'choose a lab with a database: lab list',
      exitCode: exitCodes.usage,
    })
  await refuseUnlessUp(context, 'a fault')
  return lab.database
}

/** A running scenario: what is known, and what has to be undone. */
class Scenario implements Body {
  readonly #request: ScenarioRequest
  readonly #database: DatabaseSpec
  readonly #trial: Trial
  readonly #records: LedgerRecord[] = []
  readonly #answers = new Answers()
  readonly #ending = new AbortController()
  readonly #own: Observation[] = []
  #fenced: readonly Observation[] = []
  #volumes: readonly Observation[] = []
  /** The observations of the watches, once they have ended. */
  #watched: readonly Observation[] | undefined
  #clocks: Clocks = {}
  #diskProof: DiskProof | undefined
  #readBack: Readonly<Partial<Record<Medium, readonly ReadBack[]>>> = {}
  #watch: Watch | undefined
  #ledger: LedgerFile | undefined
  #client: Client | undefined
  #stores: readonly Store[] = []
  #injected = false
  #endFencing = (): Promise<void> => Promise.resolve()

  constructor(request: ScenarioRequest, database: DatabaseSpec, trial: Trial) {
    this.#request = request
    this.#database = database
    this.#trial = trial
  }

  get #lab(): Lab {
    return this.#trial.lab
  }

  get #faults(): Injections {
    return this.#trial.faults
  }

  facts(common: Omit<CommonFacts, 'name' | 'description'>): ScenarioFacts {
    const { scenario, fencing } = this.#request
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
      ...common,
      kind: 'scenario',
      name: scenario.name,
      description: scenario.description,
      scenario,
      // The fencing that was used in this run, whatever the lab file asks for.
      fencing: fencing?.method ?? 'none',
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

  /** @returns whether every fault was observed to act */
  async #inject(client: Client, watch: Watch): Promise<boolean> {
    const { scenario, context, notice } = this.#request
    const server = watch.server()
    if (server === undefined)
      throw new LabError('no-server', `nobody knows where ${this.#lab.name}'s database runs`)
    for (const spec of scenario.inject) await this.#faults.aim(context, spec, server)
    for (const { fault } of this.#faults.all) await fault.possible?.(context)
    for (const [index, injection] of this.#faults.all.entries()) {
      const {
        record: { name: fault },
        fault: { detail },
      } = injection
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

  /** Waits until the lab has recovered, or the deadline; faults with a duration end meanwhile. */
  async #outcome(client: Client, watch: Watch): Promise<void> {
    const { scenario, context, notice } = this.#request
    const { signal } = context
    const begun = this.#faults.all[0]?.injectedMs ?? performance.now()
    // A write that was acknowledged before all faults were observed says nothing about the time after them.
    const acting = performance.now()
    const former = this.#former()
    const { expect } = scenario
    const longest = Math.max(
      shortestLook,
      ...[expect.writeGap, expect.readGap, expect.notReady, expect.takeover].map((budget) => budget ?? 0),
    )
    const lasting = this.#faults.all.filter(({ lasts }) => lasts !== undefined)
    const lasted = lasting.map(async (injected) => {
      const since = performance.now() - (injected.injectedMs ?? begun)
      await delay(Math.max(0, (injected.lasts ?? 0) - since), undefined, { signal })
      notice(`${injected.record.name}: its time is over`)
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
    const { healer, notice } = this.#request
    // From now on, answers may be due to the heal.
    if (client && !markIn(this.#records, 'healing')) await client.mark('healing')
    // A node that lost its power and was fenced boots once, when the fence is undone.
    const fenced = (await readJournal(this.#lab)).filter(({ kind }) => kind === 'fence')
    await this.#undo(
      ({ undo, kind }) =>
        kind !== 'fence' &&
        !(undo.do === switchingOn.do && fenced.some((entry) => entry.undo.machine === undo.machine)),
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
    await this.#trial.restore()
    // The undos that needed the lab to be up: only an API server can uncordon a node.
    await this.#undo(() => true)
    await this.#faults.seeGone(healer)
    for (const { fault, undo } of await readJournal(this.#lab))
      notice(`not undone: ${fault} on ${undo.machine}: ${undo.do}`)
  }

  /** Data that cannot be read back makes the verdict UNKNOWN, and is no failure of the run. */
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
    // Incorrect data is kept for inspection.
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

  /** Collects the machines' observations and the trustworthy clocks; later observations do not belong to the fault. */
  async #date(): Promise<void> {
    const { healer } = this.#request
    this.#watched = [...(this.#watch?.observations ?? [])]
    const { operator, ...before } = this.#clocks
    const { observations, clocks } = await readJournals(healer, this.#lab, this.#trial.begun, before)
    this.#volumes = observations
    const own = operator ? keptClocks({ operator }, { operator: ownClock() }) : {}
    const set = this.#faults.all.flatMap(({ record, fault }) => (record.setsClocks ? fault.on : []))
    this.#clocks = {
      ...own,
      // A clock that the heal has set back would look as if it had never changed.
      ...Object.fromEntries(Object.entries(clocks).filter(([name]) => !set.includes(name))),
    }
  }

  async act(): Promise<void> {
    const { context, healer, ledgerPath, notice } = this.#request
    const { signal } = context
    const database = this.#database
    const ledger = await createLedger(ledgerPath)
    this.#ledger = ledger
    const watch = watchLab(healer, database, this.#ending.signal)
    this.#watch = watch
    const medium = {
      reach: context,
      database,
      run: runName(this.#trial.started),
      nodeOf: (pod: string) => watch.nodeOf(pod),
    }
    const stores = [rowStore(medium), fileStore(medium)]
    this.#stores = stores
    const client = ledgerClient({
      stores,
      ledger,
      seen: (record) => {
        this.#records.push(record)
        this.#answers.take(record)
      },
    })
    this.#client = client
    const soon = AbortSignal.any([signal, AbortSignal.timeout(answerDeadline * 1000)])
    await until(() => watch.server() !== undefined, answerDeadline * 1000, signal)
    for (const store of stores)
      await store.create(soon).catch((error: unknown) => {
        signal.throwIfAborted()
        throw new LabError('no-answer', `${media[store.medium]} cannot be written to: ${messageOf(error)}`, {
          hint: `lab report ${this.#lab.name}`,
          exitCode: exitCodes.unknown,
        })
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
    if (this.#request.fencing?.by === 'run')
      this.#endFencing = await fenceMeanwhile(this.#trial, this.#request.fencing.method, watch, (fence) => {
        this.#fenced = [...this.#fenced, fence]
      })
    this.#injected = true
    const acts = await this.#inject(client, watch)
    await this.#trial.save()
    // A fault that did not act proves nothing, however long one waits.
    if (acts) await this.#outcome(client, watch)
  }

  async heal(): Promise<void> {
    await this.#endFencing()
    if (this.#request.fencing?.by === 'agent')
      this.#fenced = (await fencedSince(this.#lab, this.#trial.started)).map(fenceSeen)
    if (this.#injected) await this.#heal(this.#client)
  }

  /** Waits until writes are answered as before. */
  async settled(): Promise<void> {
    const { healer } = this.#request
    const healed = markIn(this.#records, 'healed')?.ms
    const longest = answerDeadline * 1000 * (healer.provider.patience ?? 1)
    if (!this.#trial.signal.aborted && healed !== undefined)
      await until(() => this.#answers.calmSince(healed), longest, healer.signal)
    await this.#client?.mark('end')
  }

  async readBack(): Promise<void> {
    const { healer, notice } = this.#request
    const { aborted } = this.#trial.signal
    let problem: unknown
    const note = (error: unknown): void => {
      problem ??= error
    }
    await this.#client?.stop().catch(note)
    await this.#ledger?.close()
    await this.#date().catch(note)
    if (!aborted && this.#client) {
      notice('reading back: the database ends, its disk is checked, and another one reads it')
      this.#diskProof = await putOnDisk(healer, this.#database, this.#trial.by)
    }
    await this.#readAllBack(this.#stores)
    if (!aborted) await this.#trial.lookAgain()
    this.#ending.abort()
    if (problem !== undefined) throw problem as Error
  }
}

/**
 * Runs one scenario.
 * @returns the facts for its report, already saved
 */
export const runScenario = async (request: ScenarioRequest): Promise<Facts> => {
  const database = await refuse(request)
  const trial = new Trial(request, request.scenario.name)
  return trial.run(new Scenario(request, database, trial))
}
