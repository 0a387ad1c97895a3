/**
 * What is recorded while something is done to a lab with a database: the ledger of a client outside the cluster, the
 * observations of machines and the API server, and finally what can be read back.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, Interrupted, LabError, messageOf } from '../error.js'
import { type Clocks, keptClocks, measureClocks, ownClock } from '../fault/clock.js'
import type { DatabaseSpec } from '../lab/lab.js'
import { Answers, isRowWritten, withPods, writeObservations } from './answers.js'
import { type Client, ledgerClient, runName } from './client.js'
import type { CommonFacts } from './facts.js'
import { judge, type Judgement } from './judge.js'
import { createLedger, type LedgerFile } from './ledger-file.js'
import {
  allMedia,
  type LedgerRecord,
  type Mark,
  markIn,
  media,
  type Medium,
  type ReadBack,
} from './ledger.js'
import { configStore } from './api-store.js'
import { fileStore, rowStore, type Store } from './store.js'
import { type DiskProof, putOnDisk } from './read-back.js'
import { type Observation, type Timeline, timelineOf } from './timeline.js'
import type { Trial } from './trial.js'
import { until } from './until.js'
import { readJournals, type Watch, watchLab, witnesses } from './watch.js'

/** Milliseconds of an undisturbed ledger before anything is done. */
const baseline = 5000
/** Seconds for each later phase: the ledger's first row, answers after the heal, and reading back. */
const answerDeadline = 60

/** Reads and writes of a database, from before something is done to its lab until everything was read back. */
export class Recording {
  readonly answers: Answers
  readonly #trial: Trial
  readonly #database: DatabaseSpec
  readonly #records: LedgerRecord[] = []
  readonly #ending = new AbortController()
  #volumes: readonly Observation[] = []
  /** The observations of the watches, once the action is over. */
  #watched: readonly Observation[] | undefined
  #clocks: Clocks = {}
  #diskProof: DiskProof | undefined
  #readBack: Readonly<Partial<Record<Medium, readonly ReadBack[]>>> = {}
  #watch: Watch | undefined
  #ledger: LedgerFile | undefined
  #client: Client | undefined
  #stores: readonly Store[] = []

  constructor(trial: Trial, database: DatabaseSpec) {
    this.#trial = trial
    this.#database = database
    this.answers = new Answers(trial.lab.kubernetes?.endpoint === undefined ? ['row', 'file'] : allMedia)
  }

  /** The ledger so far. */
  get records(): readonly LedgerRecord[] {
    return this.#records
  }

  get judgement(): Judgement {
    const { row, file, config } = this.#readBack
    return judge(this.#records, row, file, 'one', config)
  }

  /** The pod that answered last before the mark `fault`. */
  get former(): string | undefined {
    const fault = markIn(this.#records, 'fault')
    return this.#records.filter(isRowWritten).findLast(({ ms }) => ms <= (fault?.ms ?? 0))?.server.pod
  }

  /** @param own the actions, and what was observed by other means than the watches */
  facts(own: readonly Observation[]): Pick<CommonFacts, 'diskProof' | 'ledger'> & { timeline: Timeline } {
    const seen = [...(this.#watched ?? this.#watch?.observations ?? []), ...own]
    return {
      diskProof: this.#diskProof,
      timeline: timelineOf(
        [...seen, ...withPods(seen, this.#volumes), ...writeObservations(this.#records)],
        this.#clocks,
      ),
      ledger: this.#records.length === 0 ? undefined : { records: this.#records, judgement: this.judgement },
    }
  }

  /** Writes a mark into the ledger; does nothing if the ledger has not begun. */
  async mark(mark: Mark): Promise<void> {
    await this.#client?.mark(mark)
  }

  /**
   * Starts the watches and the writing, and returns when that has continued undisturbed for a while.
   * @throws LabError if the database does not answer
   */
  async begin(): Promise<Watch> {
    const { context, healer, ledgerPath, notice } = this.#trial.request
    const { signal } = context
    const database = this.#database
    const ledger = await createLedger(ledgerPath)
    this.#ledger = ledger
    const watch = watchLab(healer, database, this.#ending.signal, ({ type, node, detail }) => {
      this.#trial.tell('seen', `${type}: ${detail}`, { machines: node === undefined ? [] : [node] })
    })
    this.#watch = watch
    const medium = {
      dialer: context,
      database,
      run: runName(this.#trial.started),
      nodeOf: (pod: string) => watch.nodeOf(pod),
    }
    const stores = [
      rowStore(medium),
      fileStore(medium),
      ...(this.#trial.lab.kubernetes?.endpoint === undefined ? [] : [configStore(context, medium.run)]),
    ]
    this.#stores = stores
    const client = ledgerClient({
      stores,
      ledger,
      seen: (record) => {
        this.#records.push(record)
        this.answers.take(record)
      },
    })
    this.#client = client
    const soon = AbortSignal.any([signal, AbortSignal.timeout(answerDeadline * 1000)])
    await until(() => watch.server() !== undefined, answerDeadline * 1000, signal)
    for (const store of stores)
      await store.create(soon).catch((error: unknown) => {
        signal.throwIfAborted()
        throw this.#silent(`${media[store.medium]} cannot be written to: ${messageOf(error)}`)
      })
    await client.mark('begin')
    client.start()
    if (!(await until(() => this.answers.missing.length === 0, answerDeadline * 1000, signal)))
      throw this.#silent(
        `${database.name}: ${this.answers.missing.map((silent) => media[silent]).join(' and ')} acknowledged nothing within ${String(answerDeadline)} s`,
      )
    this.#trial.tell('writing', `${database.name} answers on ${watch.server() ?? 'an unknown node'}`)
    notice(`ledger: writing; ${String(baseline / 1000)} s undisturbed`)
    await delay(baseline, undefined, { signal })
    this.#clocks = { operator: ownClock(), ...(await measureClocks(context, witnesses(this.#trial.lab))) }
    return watch
  }

  #silent(message: string): LabError {
    return new LabError('no-answer', message, {
      hint: `lab report ${this.#trial.lab.name}`,
      exitCode: exitCodes.unknown,
    })
  }

  /** Returns when writes are answered as before, or a minute after the mark `healed`. */
  async settle(): Promise<void> {
    const { healer } = this.#trial.request
    const healed = markIn(this.#records, 'healed')?.ms
    const longest = answerDeadline * 1000 * (healer.provider.slowdown ?? 1)
    if (!this.#trial.signal.aborted && healed !== undefined)
      await until(() => this.answers.calmSince(healed), longest, healer.signal)
    await this.mark('end')
  }

  /** Ends the ledger and the watches, and reads back everything that was written. */
  async end(): Promise<void> {
    const { healer, notice } = this.#trial.request
    const { aborted } = this.#trial.signal
    let problem: unknown
    const note = (error: unknown): void => {
      problem ??= error
    }
    await this.#client?.stop().catch(note)
    await this.#ledger?.close()
    await this.#date().catch(note)
    if (!aborted && this.#client) {
      notice('reading back: the database is stopped, its disk is checked, and another server reads it')
      this.#diskProof = await putOnDisk(healer, this.#database, this.#trial.by)
    }
    await this.#readAllBack()
    if (!aborted) await this.#trial.lookAgain()
    this.#ending.abort()
    if (problem !== undefined) throw problem as Error
  }

  /** Data that cannot be read back makes the verdict UNKNOWN, and is no failure of the run. */
  async #readAllBack(): Promise<void> {
    const { notice, healer } = this.#trial.request
    const stores = this.#stores
    const soon = AbortSignal.timeout(answerDeadline * 1000 * (healer.provider.slowdown ?? 1))
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
    const { findings, unknown } = this.judgement
    if (this.#records.length > 0)
      this.#trial.tell(
        'read-back',
        [...findings.map(({ message }) => message), ...unknown].join('; ') || 'all is there',
        {
          ok: findings.length > 0 ? false : unknown.length > 0 ? null : true,
        },
      )
    // Incorrect data is kept for inspection.
    if (findings.length > 0 || this.#diskProof?.fileSystem?.ok === false) return
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
    const { healer } = this.#trial.request
    this.#watched = [...(this.#watch?.observations ?? [])]
    const { operator, ...before } = this.#clocks
    const { observations, clocks } = await readJournals(healer, this.#trial.lab, this.#trial.begun, before)
    this.#volumes = observations
    const own = operator ? keptClocks({ operator }, { operator: ownClock() }) : {}
    const set = this.#trial.faults.all.flatMap(({ record, fault }) => (record.setsClocks ? fault.on : []))
    this.#clocks = {
      ...own,
      // A clock that the heal has set back would look as if it had never changed.
      ...Object.fromEntries(Object.entries(clocks).filter(([name]) => !set.includes(name))),
    }
  }
}
