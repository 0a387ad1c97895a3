/**
 * The engine of every trial: steady state, what is done, heal, steady state, read back, save. What is done is its body:
 * a scenario, an experiment, or whatever else breaks a lab and looks what becomes of it.
 */
import type { Context, Plan } from '../context.js'
import { Interrupted, LabError } from '../error.js'
import { refuseWhileFenced } from '../journal.js'
import type { Lab } from '../lab/lab.js'
import { runPlan } from '../plan/runner.js'
import type { CommonFacts, Facts } from './facts.js'
import { Injections } from './injection.js'
import type { Registry } from './registry.js'
import { type CheckFact, type Look, type Steady, steadyState, type When } from './steady.js'

/** What every trial needs, whatever is done in it. */
export interface TrialRequest {
  readonly registry: Registry
  readonly context: Context
  /** Like `context`, but not ended by Ctrl-C: with it, the lab is healed. */
  readonly healer: Context
  /** What the lab is when it is well, and how it gets there. */
  readonly plan: Plan
  /** Absolute path of the ledger, which is not there yet. */
  readonly ledgerPath: string
  readonly versions: Readonly<Record<string, string>>
  /** Milliseconds for the lab to be well, before and after; absent: a minute, longer where the provider is slow. */
  readonly patience?: number | undefined
  readonly notice: (text: string) => void
  /** Keeps what is known so far; called several times. */
  readonly save: (facts: Facts) => Promise<void>
}

/** What is done in a trial. */
export interface Body {
  /** What is known at this moment. */
  facts(common: Omit<CommonFacts, 'name' | 'description'>): Facts
  /** Begins once the lab is well. @throws what keeps it from its end */
  act(): Promise<void>
  /** Undoes what was done; called whatever became of `act`. @param cut whether `act` did not come to its end */
  heal(cut: boolean): Promise<void>
  /** Called when the lab was asked again, before anything is read back. */
  settled?(): Promise<void>
  /** Ends what still goes on, and reads back what was written; called whatever has happened. */
  readBack?(): Promise<void>
}

/** Ends a body early, as a finding that is among its facts already: no failure of the trial itself. */
export class Ended extends Error {}

/** A trial while it goes on: what is known of it. */
export class Trial {
  readonly request: TrialRequest
  /** The command that the journal names. */
  readonly by: string
  readonly faults: Injections
  readonly started = new Date()
  /** On the monotonic clock of this host. */
  readonly begun = performance.now()
  #checks: readonly CheckFact[] = []
  #looks: readonly Look[] = []
  #interrupted = true
  #body: Body | undefined

  constructor(request: TrialRequest, name: string) {
    this.request = request
    this.by = `lab run ${request.context.lab.name} ${name}`
    this.faults = new Injections(this.lab, this.by, request.registry)
  }

  get lab(): Lab {
    return this.request.context.lab
  }

  get signal(): AbortSignal {
    return this.request.context.signal
  }

  /** What is known so far. */
  facts(body: Body): Facts {
    return body.facts({
      lab: this.lab.name,
      started: this.started,
      seconds: (performance.now() - this.begun) / 1000,
      interrupted: this.#interrupted,
      provider: this.request.context.provider.name,
      failover: this.lab.failover,
      fencing: this.lab.fencing,
      volume: this.lab.database?.volume.kind,
      versions: this.request.versions,
      faults: this.faults.facts(),
      checks: this.#checks,
      looks: this.#looks,
    })
  }

  /** Keeps what is known so far. */
  async save(): Promise<void> {
    if (this.#body) await this.request.save(this.facts(this.#body))
  }

  async #ask(when: When, context: Context): Promise<Steady> {
    const { plan, patience } = this.request
    const steady = await steadyState(plan, when, context, patience)
    this.#looks = [...this.#looks, ...steady.looks]
    return steady
  }

  async #look(when: When, context: Context): Promise<boolean> {
    const steady = await this.#ask(when, context)
    this.#checks = [...this.#checks, ...steady.checks]
    return steady.ok
  }

  /** Asks once more, after something else was done to the lab: of that look, only what is wrong is news. */
  async lookAgain(): Promise<void> {
    const steady = await this.#ask('after', this.request.healer)
    if (!steady.ok) this.#checks = [...this.#checks, ...steady.checks.filter(({ ok }) => !ok)]
  }

  /** Brings the lab to what its file says. @throws LabError while a node is fenced that must not be let in */
  async restore(): Promise<void> {
    const { plan, healer } = this.request
    await refuseWhileFenced(this.lab)
    await runPlan(plan, 'apply', healer, () => undefined)
  }

  /** @returns what is to be reported, already saved */
  async run(body: Body): Promise<Facts> {
    this.#body = body
    const { context, healer, notice } = this.request
    const { signal } = this
    await this.save()
    notice('steady state: asking every check')
    if (!(await this.#look('before', context))) {
      this.#interrupted = signal.aborted
      await this.save()
      if (signal.aborted) throw new Interrupted()
      return this.facts(body)
    }
    let problem: unknown
    let cut = false
    /** What goes wrong keeps no later part from its turn; the first is reported. */
    const part = async (run: () => Promise<void>): Promise<void> => {
      try {
        await run()
      } catch (error) {
        cut = true
        if (!(error instanceof Ended)) problem ??= error
      }
    }
    await part(() => body.act())
    await part(async () => {
      await body.heal(cut || signal.aborted)
      if (!signal.aborted) {
        notice('steady state: asking every check again')
        await this.#look('after', healer)
      }
      await body.settled?.()
    })
    await part(async () => body.readBack?.())
    this.#interrupted = signal.aborted || problem !== undefined
    await this.save()
    if (signal.aborted) throw new Interrupted()
    if (problem !== undefined) throw problem as Error
    return this.facts(body)
  }
}

/** @throws LabError where a machine is off: then a trial would prove nothing; nothing was touched */
export const refuseUnlessUp = async ({ lab, provider }: Context, what: string): Promise<void> => {
  const off = (await provider.states(lab)).filter(({ status }) => status !== 'running')
  if (off.length > 0)
    throw new LabError(
      'not-up',
      `${lab.name}: not running: ${off.map(({ name }) => name).join(', ')}; ${what} would prove nothing`,
      { hint: `lab up ${lab.name}` },
    )
}
