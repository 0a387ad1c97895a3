/**
 * The course of an experiment: its own namespace, a history of all changes to the pods in it, and the claims about
 * them. However an experiment ends, the lab is left as it was.
 */
import type { Duplex } from 'node:stream'
import type { Experiment, ExperimentContext, Members } from './experiment-context.js'
import { setTimeout as delay } from 'node:timers/promises'
import { Interrupted, LabError, messageOf } from '../error.js'
import { noteUndo, type Undo } from '../journal.js'
import { type FaultSpec, type Lab, machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import { refusalOf } from '../fault/fault.js'
import { see } from '../fault/sign.js'
import type { CommonFacts, ExperimentFacts, Facts, TextFigure } from './facts.js'
import { type Body, Ended, refuseUnlessUp, Trial, type TrialRequest } from './trial.js'
import { faultNamed, type Injections } from './injection.js'
import type { Dialer, Store } from './store.js'
import { StoreLedger } from './store-ledger.js'
import { hindrancesOf, refuseHindered } from './hindrances.js'
import { namespaceOf } from './namespace.js'
import { takeNamespace } from './own-namespace.js'
import { undoAll } from './undo.js'
import { manifestText, renderedManifest } from '../steps/workloads.js'
import { PodHistory, type PodObject, type PodSeen, describeChange } from './history.js'

export interface ExperimentRequest extends TrialRequest {
  readonly experiment: Experiment
}

/** Milliseconds between two evaluations while no pod changes. */
const glance = 500
/** A failed claim on which everything that follows depends. */
class ClaimFailed extends Ended {}

type Claim = ExperimentFacts['claims'][number]
type Figure = ExperimentFacts['figures'][number]
type Event = ExperimentFacts['events'][number]

/** A running experiment. */
class Run implements ExperimentContext {
  readonly history = new PodHistory()
  readonly namespace: string
  readonly #request: ExperimentRequest
  readonly #trial: Trial
  readonly #ending = new AbortController()
  readonly #claims: Claim[] = []
  readonly #figures: Figure[] = []
  readonly #events: Event[] = []
  /** Journal ids of entries that stay until the end of the experiment. */
  readonly #kept = new Set<string>()
  readonly #ledger: StoreLedger
  /** Callers that wait for a change. */
  #waiting: (() => void)[] = []

  constructor(request: ExperimentRequest, trial: Trial) {
    this.#request = request
    this.#trial = trial
    this.#ledger = new StoreLedger(this, trial)
    this.namespace = namespaceOf(request.context.lab, request.experiment)
  }

  get #faults(): Injections {
    return this.#trial.faults
  }

  get lab(): Lab {
    return this.#request.context.lab
  }

  get signal(): AbortSignal {
    return this.#request.context.signal
  }

  now(): number {
    return this.#trial.now()
  }

  kubectl(args: readonly string[], options?: { input?: string; timeout?: number }): Promise<string> {
    return this.#request.context.kubectl.run(['--namespace', this.namespace, ...args], options)
  }

  get<T>(...args: readonly string[]): Promise<T> {
    return this.#request.context.kubectl.get<T>('--namespace', this.namespace, ...args)
  }

  manifest(name: string, data: object = {}): string {
    return manifestText(this.lab, name, data)
  }

  async apply(name: string, data: object = {}): Promise<void> {
    await this.kubectl(['apply', '-f', '-'], { input: this.manifest(name, data), timeout: 60 })
  }

  async applyFolder(name: string): Promise<void> {
    const [flag, folder] = await renderedManifest(this.lab, name)
    await this.kubectl(['apply', flag, folder], { timeout: 60 })
  }

  dial(host: string, port: number): Promise<Duplex> {
    const { lab, provider } = this.#request.context
    return provider.dial(lab, host, port)
  }

  async exec(pod: string, command: readonly string[], container?: string): Promise<string> {
    const of = container === undefined ? [] : ['--container', container]
    return (await this.kubectl(['exec', pod, ...of, '--', ...command], { timeout: 90 })).trim()
  }

  #note(type: Event['type'], detail: string): void {
    this.#events.push({ type, at: new Date().toISOString(), ms: Math.round(this.now()), detail })
    if (type !== 'claim') this.#trial.tell(type === 'act' ? 'acted' : 'seen', detail)
  }

  async act(title: string, action: () => Promise<unknown>): Promise<number> {
    this.signal.throwIfAborted()
    const from = this.now()
    this.#note('act', title)
    this.#request.notice(title)
    await action()
    return from
  }

  claim(title: string, { ok, saw }: Verdict): void {
    const { blind } = this.history
    // What holds for the pods that were seen last may no longer hold.
    if (ok && blind !== undefined) this.#claimed(title, 'unknown', `${saw}, but ${blind}`)
    else this.#claimed(title, ok ? 'passed' : 'failed', saw)
  }

  #claimed(title: string, outcome: Claim['outcome'], saw: string): void {
    this.#claims.push({ title, outcome, saw })
    const word = { passed: 'holds', failed: 'does not hold', unknown: 'is unknown' }[outcome]
    this.#note('claim', `${word}: ${title}: ${saw}`)
    this.#trial.tell('claimed', `${title}: ${saw}`, {
      ok: outcome === 'unknown' ? null : outcome === 'passed',
    })
  }

  figure(title: string, ms: number, text?: TextFigure): void {
    this.#figures.push({ title, ms: Math.round(ms), text: text ?? null })
  }

  /** Waits until a pod changes, or for a little while. */
  async #glance(): Promise<void> {
    await Promise.race([
      new Promise<void>((resolve) => this.#waiting.push(resolve)),
      delay(glance, undefined, { signal: this.signal }).catch(() => undefined),
    ])
    if (this.signal.aborted) throw new Interrupted()
  }

  async until(
    title: string,
    within: number,
    holds: () => Verdict | Promise<Verdict>,
    from = this.now(),
  ): Promise<number> {
    const deadline = this.now() + within * 1000
    for (;;) {
      const verdict = await Promise.resolve()
        .then(holds)
        .catch((error: unknown): Verdict => ({ ok: false, saw: messageOf(error) }))
      if (this.signal.aborted) throw new Interrupted()
      const took = this.now() - from
      if (verdict.ok) {
        this.claim(title, { ok: true, saw: `${verdict.saw}, after ${(took / 1000).toFixed(1)} s` })
        return took
      }
      if (verdict.final === true || this.now() > deadline) {
        this.claim(title, { ok: false, saw: `${verdict.saw} (waited ${(took / 1000).toFixed(1)} s)` })
        throw new ClaimFailed(title)
      }
      await this.#glance()
    }
  }

  async stays(title: string, seconds: number, holds: () => Verdict): Promise<void> {
    const begun = this.now()
    let last = holds()
    while (last.ok && this.now() - begun < seconds * 1000) {
      await this.#glance()
      last = holds()
    }
    const length = ((this.now() - begun) / 1000).toFixed(1)
    // Silence is no evidence while the API server does not answer.
    if (last.ok) {
      try {
        await this.kubectl(['get', 'pods', '--output', 'name'])
      } catch (error) {
        if (this.signal.aborted) throw new Interrupted()
        this.#claimed(title, 'unknown', `${last.saw}, but pods are not seen: ${messageOf(error)}`)
        return
      }
      last = holds()
    }
    this.claim(title, { ok: last.ok, saw: `${last.saw}, for ${length} s` })
  }

  async undoLater(undo: Undo): Promise<void> {
    const entries = await noteUndo(this.lab, this.#trial.by, this.#request.experiment.name, [undo], 'run')
    for (const { id } of entries) this.#kept.add(id)
  }

  async fault(spec: FaultSpec): Promise<void> {
    const { context, notice, registry } = this.#request
    const why = refusalOf(faultNamed(registry, spec.fault), context.provider)
    if (why !== undefined) throw new LabError('fault-impossible', `${spec.fault}: ${why}`)
    const injection = await this.#faults.aim(context, spec, '')
    const { fault } = injection
    await fault.possible?.(context)
    const acts = await this.#faults.inject(context, injection, () => {
      this.#note('act', fault.detail)
      notice(fault.detail)
      return Promise.resolve()
    })
    // It is among the faults of the report; a fault that did not act proves nothing.
    if (!acts) throw new ClaimFailed(injection.error ?? injection.acting?.saw)
  }

  /** Heals faults and their fences; what the experiment itself made stays until its end. */
  async #healFaults(): Promise<void> {
    const { healer, notice } = this.#request
    if (this.#faults.open.length === 0) return
    notice('healing: restoring the lab to what its file says')
    this.#note('act', 'faults undone')
    const undo = (): Promise<void> => this.#faults.undo(healer, ({ id }) => !this.#kept.has(id))
    await undo()
    await this.#trial.restore()
    // The undos that needed the lab to be up: only an API server can uncordon a node.
    await undo()
    await this.#faults.seeGone(healer)
  }

  heal(): Promise<void> {
    return this.#healFaults()
  }

  get dialer(): Dialer {
    return this.#request.context
  }

  async ledger(
    storeOf: (run: string) => Store,
    during: () => Promise<void>,
    members?: Members,
  ): Promise<void> {
    await this.#ledger.keep(storeOf, during, members)
  }

  #facts(common: Omit<CommonFacts, 'name' | 'description'>): ExperimentFacts {
    const { name, description } = this.#request.experiment
    const unseen = this.history.unseenSince()
    return {
      ...common,
      kind: 'experiment',
      name,
      description,
      ...this.#ledger.facts(),
      claims: [
        ...this.#claims,
        // A claim about a period needs all of it.
        ...(unseen === undefined
          ? []
          : [{ title: 'every change of the pods was seen', outcome: 'unknown', saw: unseen } as const]),
      ],
      figures: this.#figures,
      events: this.#events,
    }
  }

  async #makeNamespace(machine: string): Promise<void> {
    const { healer } = this.#request
    await takeNamespace(healer, this.namespace, machine, (undo) => this.undoLater(undo))
    // A pod cannot be created before its namespace has the service account that it uses.
    const seen = await see(
      {
        title: 'the namespace is ready',
        within: 30,
        probe: async () => {
          await this.kubectl(['get', 'serviceaccount', 'default'])
          return { ok: true, saw: this.namespace }
        },
      },
      this.#request.context,
    )
    if (seen.ok) return
    this.claim(seen.title, seen)
    throw new ClaimFailed(seen.title)
  }

  /** From here on, no change to a pod of the namespace is missed. */
  async #follow(): Promise<void> {
    const seen = new Map<string, PodSeen>()
    await this.#request.healer.kubectl.follow(
      `/api/v1/namespaces/${this.namespace}/pods`,
      ({ type, object }) => {
        if (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED') return
        const change = this.history.take(this.now(), type, object as unknown as PodObject)
        if (!change) return
        const text = describeChange(change, seen.get(change.pod.uid))
        seen.set(change.pod.uid, change.pod)
        if (text !== undefined) this.#note('pod', text)
        for (const wake of this.#waiting.splice(0)) wake()
      },
      this.#ending.signal,
      {
        lost: (reason) => {
          const why = `pods are not seen: ${messageOf(reason)}`
          if (why !== this.history.blind) this.#request.notice(why)
          this.history.blind = why
        },
        back: () => (this.history.blind = undefined),
        missed: (reason) => {
          const ms = this.now()
          const why = `changes of pods until ${(ms / 1000).toFixed(1)} s were missed: ${messageOf(reason)}`
          this.#request.notice(why)
          this.history.miss(ms, why)
        },
      },
    )
  }

  async #act(): Promise<void> {
    const { experiment } = this.#request
    const [master] = machinesWith(this.lab, 'control-plane')
    if (!experiment.workload) await this.#makeNamespace(master?.name ?? '')
    await this.#follow()
    await experiment.run(this)
  }

  /** @param cut whether it could not restore what `lab up` had deployed */
  async #cleanUp(cut: boolean): Promise<void> {
    const { experiment, healer, notice, registry } = this.#request
    await this.#healFaults()
    if (cut && experiment.workload) await this.#trial.restore()
    notice('removing what was made')
    const failed = await undoAll(healer, registry)
    for (const text of failed) notice(`not undone: ${text}`)
  }

  /** The body for the engine. */
  get body(): Body {
    return {
      facts: (common) => this.#facts(common),
      act: () => this.#act(),
      heal: (cut) => this.#cleanUp(cut),
      readBack: () => {
        this.#ending.abort()
        return Promise.resolve()
      },
    }
  }
}

/**
 * Runs one experiment.
 * @returns the facts for its report, already saved
 */
export const runExperiment = async (request: ExperimentRequest): Promise<Facts> => {
  const { experiment, context } = request
  refuseHindered(experiment.name, await hindrancesOf(context, request.registry, experiment))
  await refuseUnlessUp(context, 'an experiment')
  const trial = new Trial(request, experiment.name)
  return trial.run(new Run(request, trial).body)
}
