/**
 * A scenario from steady state to steady state: check, write, break, wait, heal, check again, read back. However it
 * ends, what was broken is undone and what is known is saved.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { until } from './until.js'
import { exitCodes, LabError } from '../error.js'
import type { DatabaseSpec, Lab, ScenarioSpec } from '../lab/lab.js'
import type { CommonFacts, Facts, ScenarioFacts } from './facts.js'
import { type Body, refuseUnlessUp, Trial, type TrialRequest } from './trial.js'
import { fenceMeanwhile, fenceSeen } from './fence-meanwhile.js'
import { refuseHindered, scenarioHindrances } from './hindrances.js'
import type { Injections } from './injection.js'
import { type JournalEntry, readJournal } from '../journal.js'
import { switchingOn } from '../fault/power.js'
import type { FenceMethod } from '../fencing/fence.js'
import { fencedSince } from '../fencing/process.js'
import { markIn } from './ledger.js'
import { recoveryOf } from './recovery.js'
import { Recording } from './recording.js'
import { type Observation } from './timeline.js'
import { type Watch } from './watch.js'

/** Milliseconds to observe a fault that stops no write, if no limit implies a duration. */
const shortestLook = 10_000
export interface ScenarioRequest extends TrialRequest {
  readonly scenario: ScenarioSpec
  /** Who fences a lost node: the lab's agent, this program for the duration of the run, or nobody. */
  readonly fencing: { readonly by: 'agent' | 'run'; readonly method: FenceMethod } | undefined
}

/** @throws LabError if the scenario cannot be run at all; nothing was touched */
const refuse = async ({ scenario, context, registry }: ScenarioRequest): Promise<DatabaseSpec> => {
  const { lab } = context
  refuseHindered(scenario.name, await scenarioHindrances(context, registry, scenario))
  if (!lab.database)
    throw new LabError(
      'no-database',
      `${lab.name} has no database, so the effect of a fault could not be measured`,
      {
        hint: 'choose a lab with a database: lab list',
        exitCode: exitCodes.usage,
      },
    )
  await refuseUnlessUp(context, 'a fault')
  return lab.database
}

/** A running scenario: what is known, and what has to be undone. */
class Scenario implements Body {
  readonly #request: ScenarioRequest
  readonly #trial: Trial
  readonly #recording: Recording
  readonly #own: Observation[] = []
  #fenced: readonly Observation[] = []
  #injected = false
  #endFencing = (): Promise<void> => Promise.resolve()

  constructor(request: ScenarioRequest, database: DatabaseSpec, trial: Trial) {
    this.#request = request
    this.#trial = trial
    this.#recording = new Recording(trial, database)
  }

  get #lab(): Lab {
    return this.#trial.lab
  }

  get #faults(): Injections {
    return this.#trial.faults
  }

  facts(common: Omit<CommonFacts, 'name' | 'description'>): ScenarioFacts {
    const { scenario, fencing } = this.#request
    const { records } = this.#recording
    const [first] = this.#faults.all
    const injected = first?.injected !== undefined
    const seen = [
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
            ...(scenario.heal === 'deadline' ? {} : { itself: recoveryOf(records, 'itself') }),
            healed: recoveryOf(records, 'heal'),
          }
        : undefined,
      ...this.#recording.facts(seen),
    }
  }

  /** @returns whether every fault was observed to act */
  async #inject(watch: Watch): Promise<boolean> {
    const { scenario, context, notice } = this.#request
    const server = watch.server()
    if (server === undefined)
      throw new LabError('no-server', `it is unknown where ${this.#lab.name}'s database runs`)
    for (const spec of scenario.inject) await this.#faults.aim(context, spec, server)
    for (const { fault } of this.#faults.all) await fault.possible?.(context)
    for (const [index, injection] of this.#faults.all.entries()) {
      const {
        record: { name: fault },
        fault: { detail },
      } = injection
      const acts = await this.#faults.inject(context, injection, async () => {
        notice(`${fault}: ${detail}`)
        if (index === 0) await this.#recording.mark('fault')
      })
      if (!acts) {
        notice(`${fault} did not take effect: ${injection.error ?? injection.acting?.saw ?? ''}`)
        return false
      }
    }
    await this.#recording.mark('acting')
    return true
  }

  #undo(which: (entry: JournalEntry) => boolean): Promise<void> {
    return this.#faults.undo(this.#request.healer, which)
  }

  /** Waits until the lab has recovered, or the deadline; faults with a duration end meanwhile. */
  async #outcome(watch: Watch): Promise<void> {
    const { scenario, context, notice } = this.#request
    const { signal } = context
    const begun = this.#faults.all[0]?.injectedMs ?? performance.now()
    // A write that was acknowledged before all faults were observed says nothing about the time after them.
    const acting = performance.now()
    const { expect } = scenario
    const { answers, former } = this.#recording
    const longest = Math.max(
      shortestLook,
      ...[expect.writeGap, expect.readGap, expect.notReady, expect.takeover, expect.apiGap].map(
        (budget) => budget ?? 0,
      ),
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
      if (!answers.calmSince(acting) || !seenNotReady()) return false
      const moved = answers.lastPod !== former
      return moved || (expect.takeover === undefined && performance.now() - begun >= longest)
    }
    const over = await until(
      scenario.heal === 'deadline' ? () => false : recovered,
      scenario.deadline - (performance.now() - begun),
      signal,
    )
    await this.#recording.mark('healing')
    if (over) await overdue
    const length = `${String(scenario.deadline / 1000)} s`
    const end = over
      ? 'writes are answered again'
      : scenario.heal === 'deadline'
        ? `the fault has lasted ${length}`
        : `the lab has not recovered within ${length}`
    notice(end)
    if (scenario.heal !== 'deadline') this.#trial.tell('recovered', end, { ok: over })
  }

  async #heal(): Promise<void> {
    const { healer, notice } = this.#request
    // From now on, answers may be due to the heal.
    if (!markIn(this.#recording.records, 'healing')) await this.#recording.mark('healing')
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
    await this.#recording.mark('healed')
    notice('healing: restoring the lab to what its file says')
    await this.#trial.restore()
    // The undos that needed the lab to be up: only an API server can uncordon a node.
    await this.#undo(() => true)
    await this.#faults.seeGone(healer)
    for (const { fault, undo } of await readJournal(this.#lab))
      notice(`not undone: ${fault} on ${undo.machine}: ${undo.do}`)
  }

  async act(): Promise<void> {
    const watch = await this.#recording.begin()
    if (this.#request.fencing?.by === 'run')
      this.#endFencing = await fenceMeanwhile(this.#trial, this.#request.fencing.method, watch, (fence) => {
        this.#fenced = [...this.#fenced, fence]
        this.#trial.tell('seen', `${fence.type}: ${fence.detail}`, { machines: [fence.node ?? ''] })
      })
    this.#injected = true
    const acts = await this.#inject(watch)
    await this.#trial.save()
    // A fault that did not act proves nothing, however long one waits.
    if (acts) await this.#outcome(watch)
  }

  async heal(): Promise<void> {
    await this.#endFencing()
    if (this.#request.fencing?.by === 'agent')
      this.#fenced = (await fencedSince(this.#lab, this.#trial.started)).map(fenceSeen)
    if (this.#injected) await this.#heal()
  }

  settled(): Promise<void> {
    return this.#recording.settle()
  }

  readBack(): Promise<void> {
    return this.#recording.end()
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
