/**
 * The engine of every trial: steady state, body, heal, steady state, read back, save. The body is what is done: a
 * scenario, an experiment, or an exercise, whose actor is a person.
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
import type { TrialEvent, TrialEventName } from './trial-event.js'

/** What every trial needs, whatever its body. */
export interface TrialRequest {
  readonly registry: Registry
  readonly context: Context
  /** Like `context`, but not aborted by Ctrl-C, so that the lab can be healed with it. */
  readonly healer: Context
  /** The plan that defines and restores the lab's healthy state. */
  readonly plan: Plan
  /** Absolute path of the ledger, which must not exist yet. */
  readonly ledgerPath: string
  readonly versions: Readonly<Record<string, string>>
  /** Milliseconds for the lab to become healthy, before and after; absent: a minute, longer for a slow provider. */
  readonly steadyLimit?: number | undefined
  /** For people. */
  readonly notice: (text: string) => void
  /** For programs: every moment of the trial. */
  readonly event: (event: TrialEvent) => void
  /** Stores what is known so far; called several times. */
  readonly save: (facts: Facts) => Promise<void>
}

/** The body of a trial. */
export interface Body {
  /** The facts at this moment. */
  facts(common: Omit<CommonFacts, 'name' | 'description'>): Facts
  /**
   * Called once the lab is healthy.
   * @throws what prevents its completion
   */
  act(): Promise<void>
  /**
   * Undoes what was done; called whatever the result of `act`.
   * @param cut whether `act` did not complete
   */
  heal(cut: boolean): Promise<void>
  /** Called after the second steady state, before anything is read back. */
  settled?(): Promise<void>
  /** Ends what is still running and reads back what was written; called in any case. */
  readBack?(): Promise<void>
}

/** Ends a body early because of a finding that is already among its facts: the trial itself has not failed. */
export class Ended extends Error {}

/** A running trial and its facts. */
export class Trial {
  readonly request: TrialRequest
  /** The command for the journal. */
  readonly by: string
  readonly faults: Injections
  readonly started = new Date()
  /** On this host's monotonic clock. */
  readonly begun = performance.now()
  #checks: readonly CheckFact[] = []
  #looks: readonly Look[] = []
  #interrupted = true
  #body: Body | undefined
  readonly #name: string

  /** @param verb the command that does it, for the journal */
  constructor(request: TrialRequest, name: string, verb = 'run') {
    this.request = request
    this.#name = name
    this.by = `lab ${verb} ${request.context.lab.name} ${name}`
    this.faults = new Injections(this.lab, this.by, request.registry, (what, detail, more) => {
      this.tell(what, detail, more)
    })
  }

  /** Milliseconds since the trial began. */
  now(): number {
    return performance.now() - this.begun
  }

  /** Reports an event of this moment to whoever follows the trial. */
  tell(
    what: TrialEventName,
    detail: string,
    more: Partial<Pick<TrialEvent, 'fault' | 'machines' | 'ok'>> = {},
  ): void {
    this.request.event({
      trial: this.#name,
      what,
      ms: Math.round(this.now()),
      fault: null,
      machines: [],
      ok: null,
      ...more,
      detail,
    })
  }

  get lab(): Lab {
    return this.request.context.lab
  }

  get signal(): AbortSignal {
    return this.request.context.signal
  }

  /** The facts so far. */
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

  /** Stores the facts so far. */
  async save(): Promise<void> {
    if (this.#body) await this.request.save(this.facts(this.#body))
  }

  async #ask(when: When, context: Context): Promise<Steady> {
    const { plan, steadyLimit } = this.request
    const steady = await steadyState(plan, when, context, steadyLimit)
    this.#looks = [...this.#looks, ...steady.looks]
    const no = steady.checks.filter(({ ok }) => !ok)
    this.tell(
      'steady',
      no.map(({ title, saw }) => `${title}: ${saw}`).join('; ') ||
        `every check passed ${when === 'before' ? 'at the start' : 'at the end'}`,
      {
        ok: steady.ok,
      },
    )
    return steady
  }

  async #look(when: When, context: Context): Promise<boolean> {
    const steady = await this.#ask(when, context)
    this.#checks = [...this.#checks, ...steady.checks]
    return steady.ok
  }

  /** Checks once more after something else was done to the lab; only failures are added. */
  async lookAgain(): Promise<void> {
    const steady = await this.#ask('after', this.request.healer)
    if (!steady.ok) this.#checks = [...this.#checks, ...steady.checks.filter(({ ok }) => !ok)]
  }

  /**
   * Brings the lab to the state in its file.
   * @throws LabError while a node is fenced that must not be admitted
   */
  async restore(): Promise<void> {
    const { plan, healer } = this.request
    await refuseWhileFenced(this.lab)
    this.tell('healing', 'the lab is restored to what its file says')
    await runPlan(plan, 'apply', healer, () => undefined)
    this.tell('healed', 'the lab is what its file says')
  }

  /** @returns the facts for the report, already saved */
  async run(body: Body): Promise<Facts> {
    this.#body = body
    const { context, healer, notice } = this.request
    const { signal } = this
    await this.save()
    this.tell('started', `${context.provider.name}, ${this.lab.machines.map(({ name }) => name).join(', ')}`)
    notice('steady state: asking every check')
    if (!(await this.#look('before', context))) {
      this.#interrupted = signal.aborted
      await this.save()
      this.tell('finished', 'the lab was unhealthy before the run, and was left as it was', { ok: false })
      if (signal.aborted) throw new Interrupted()
      return this.facts(body)
    }
    let problem: unknown
    let cut = false
    /** Runs every part even if an earlier one failed; the first error is reported. */
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
    this.tell('finished', `after ${(this.now() / 1000).toFixed(1)} s`, { ok: !this.#interrupted })
    if (signal.aborted) throw new Interrupted()
    if (problem !== undefined) throw problem as Error
    return this.facts(body)
  }
}

/** @throws LabError if a machine is off, since a trial would prove nothing; nothing was touched */
export const refuseUnlessUp = async ({ lab, provider }: Context, what: string): Promise<void> => {
  const off = (await provider.states(lab)).filter(({ status }) => status !== 'running')
  if (off.length > 0)
    throw new LabError(
      'not-up',
      `${lab.name}: not running: ${off.map(({ name }) => name).join(', ')}; ${what} would prove nothing`,
      { hint: `lab up ${lab.name}` },
    )
}
