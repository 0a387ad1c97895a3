/**
 * The bench that an experiment works on: a namespace of its own, a history of all that happens to the pods in it,
 * and what is claimed of them. Whatever ends an experiment, the lab is left as it was found.
 */
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, Interrupted, LabError, messageOf } from '../error.js'
import { noteUndo, refuseWhileFenced, strike, type Undo } from '../journal.js'
import { experiments, type ExperimentName } from '../lab/experiments.js'
import { type FaultSpec, type Lab, machinesWith } from '../lab/lab.js'
import { runPlan } from '../plan/runner.js'
import type { Context, Plan } from '../context.js'
import type { Verdict } from '../plan/step.js'
import type { ExperimentFacts, RunFacts } from '../report/run.js'
import { refusal } from '../fault/faults.js'
import { Injections } from './injection.js'
import { ledgerClient } from './client.js'
import { createLedger } from './ledger-file.js'
import { judge, type Judgement, type LedgerRecord, type ReadBack } from './ledger.js'
import type { Reach, Store } from './medium.js'
import type { DiskProof } from './read-back.js'
import { runName } from './scenario.js'
import { type CheckFact, type Look, steadyState, type When } from './steady.js'
import { undoAll } from '../fault/undo.js'
import { manifestText, renderedManifest } from '../steps/workloads.js'
import { type PodChange, PodHistory, type PodObject, type PodSeen } from './history.js'

/** What the walkthroughs measured: milliseconds, and where that is said. */
export interface SeedFigure {
  readonly ms: number
  readonly how: string
}

/** What an experiment may do, and how it says what it saw. */
export interface Bench {
  readonly lab: Lab
  readonly namespace: string
  readonly signal: AbortSignal
  /** Every pod of the namespace, from before the first act on. */
  readonly history: PodHistory
  /** Milliseconds since the history began: what claims are counted from. */
  now(): number
  /** In the namespace. @throws LabError with kubectl's own words */
  kubectl(args: readonly string[], options?: { input?: string; timeout?: number }): Promise<string>
  get<T>(...args: readonly string[]): Promise<T>
  /** A manifest of the lab's folder, applied as a person does: `kubectl apply -f`. */
  apply(manifest: string, data?: object): Promise<void>
  /** A folder of the lab's folder with a kustomization, applied as a person does: `kubectl apply -k`. */
  applyFolder(name: string): Promise<void>
  /** A connection from outside the cluster to an address of the lab's network. */
  dial(host: string, port: number): Promise<Duplex>
  /** Text of a manifest of the lab's folder. */
  manifest(name: string, data?: object): string
  /** A command in a container of a pod; its output, trimmed. */
  exec(pod: string, command: readonly string[], container?: string): Promise<string>
  /** Does something, and writes down when. @returns the moment before it: what claims are counted from */
  act(title: string, action: () => Promise<unknown>): Promise<number>
  /**
   * Waits until it is so: a claim by itself, which ends the experiment when it does not come true in time.
   * @returns milliseconds since `from`
   */
  until(
    title: string,
    within: number,
    holds: () => Verdict | Promise<Verdict>,
    from?: number,
  ): Promise<number>
  /** That it stays so for a while. */
  stays(title: string, seconds: number, holds: () => Verdict): Promise<void>
  claim(title: string, verdict: Verdict): void
  /** Something measured, beside what the walkthrough measured. */
  figure(title: string, ms: number, seed?: SeedFigure): void
  /** A fault of scenarios, with its undo written down before. */
  fault(spec: FaultSpec): Promise<void>
  /**
   * While something is done, a client outside the cluster writes and reads all the time; afterwards all that it was
   * acknowledged is read back and judged. Once in an experiment.
   * @param storeOf given the name that is to be used for what is written
   * @param members all of them end before it is read back; absent: what they answer may come from their memory
   */
  ledger(storeOf: (run: string) => Store, during: () => Promise<void>, members?: Members): Promise<void>
  /** Where a client outside the cluster comes from. */
  readonly reach: Reach
  /** Undoes all faults, and waits until the lab is what its file says. */
  heal(): Promise<void>
  /** Writes down how something is undone that an experiment does itself. */
  undoLater(undo: Undo): Promise<void>
}

/** All pods of a database that `lab up` has deployed. */
export interface Members {
  /** What makes them, as `kind/name`. */
  readonly workload: string
  readonly replicas: number
  readonly are: (pod: PodSeen) => boolean
  /** Seconds for all of them to end, and again for all to be ready. */
  readonly within: number
}

export interface Experiment {
  /** Workers that it needs. */
  readonly workers: number
  /**
   * It works on what `lab up` has deployed, in the namespace default, and puts back by itself what it changes; others
   * have a namespace of their own.
   */
  readonly workload?: true
  run(bench: Bench): Promise<void>
}

export interface ExperimentRequest {
  readonly name: ExperimentName
  readonly experiment: Experiment
  readonly context: Context
  /** Like `context`, but not ended by Ctrl-C: with it, the lab is healed. */
  readonly healer: Context
  readonly plan: Plan
  readonly versions: Readonly<Record<string, string>>
  /** Milliseconds for the lab to be well, before and after; absent: as for scenarios. */
  readonly patience?: number | undefined
  readonly notice: (text: string) => void
  readonly ledgerPath: string
  /** Keeps what is known so far; called several times. */
  readonly save: (facts: RunFacts) => Promise<void>
}

/** Seconds for a store to take the first write, and to give back all of them. */
const answerDeadline = 60
/** Milliseconds of undisturbed writing before anything is done. */
const baseline = 3000
/** Milliseconds between two looks, where no change of a pod tells to look again. */
const glance = 500
/** A claim that did not come true, on which all that follows rests. */
class ClaimFailed extends Error {}

/** `web-0 is ready on worker1`, for the record. */
export const describeChange = ({ kind, pod }: PodChange, before: PodSeen | undefined): string | undefined => {
  const on = pod.node === undefined ? '' : ` on ${pod.node}`
  if (kind === 'gone') return `${pod.name} is gone`
  if (kind === 'new') return `${pod.name} is made (${pod.image})${on}`
  if (pod.terminating && before?.terminating !== true) return `${pod.name} is told to end${on}`
  if (pod.restarts > (before?.restarts ?? 0))
    return `${pod.name} was restarted${on}${pod.ready ? ', and is ready' : ''}`
  if (pod.ready && before?.ready !== true) return `${pod.name} is ready${on}`
  if (!pod.ready && before?.ready === true && !pod.terminating) return `${pod.name} is no longer ready${on}`
  if (pod.node !== undefined && before?.node === undefined) return `${pod.name} goes to ${pod.node}`
  if (pod.unschedulable !== undefined && before?.unschedulable === undefined)
    return `${pod.name} fits nowhere: ${pod.unschedulable}`
  return undefined
}

type Claim = ExperimentFacts['claims'][number]
type Figure = ExperimentFacts['figures'][number]
type Event = ExperimentFacts['events'][number]

/** A bench while an experiment goes on. */
class Run implements Bench {
  readonly history = new PodHistory()
  readonly namespace: string
  readonly #request: ExperimentRequest
  readonly #started = new Date()
  readonly #begun = performance.now()
  readonly #ending = new AbortController()
  readonly #claims: Claim[] = []
  readonly #figures: Figure[] = []
  readonly #events: Event[] = []
  readonly #faults: Injections
  /** What the journal calls that which stays until the end of the experiment. */
  readonly #kept = new Set<string>()
  readonly #records: LedgerRecord[] = []
  #readBack: readonly ReadBack[] | undefined
  #diskProof: DiskProof | undefined
  #checks: readonly CheckFact[] = []
  #looks: readonly Look[] = []
  #interrupted = true
  /** Those who wait for something to happen. */
  #waiting: (() => void)[] = []

  constructor(request: ExperimentRequest) {
    this.#request = request
    this.namespace = request.experiment.workload ? 'default' : `lab-${request.name}`
    this.#faults = new Injections(this.lab, this.#by)
  }

  get lab(): Lab {
    return this.#request.context.lab
  }

  get signal(): AbortSignal {
    return this.#request.context.signal
  }

  now(): number {
    return performance.now() - this.#begun
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
    this.#claims.push({ title, outcome: ok ? 'passed' : 'failed', saw })
    this.#note('claim', `${ok ? 'holds' : 'does not hold'}: ${title}: ${saw}`)
  }

  figure(title: string, ms: number, seed?: SeedFigure): void {
    this.#figures.push({ title, ms: Math.round(ms), seed: seed ?? null })
  }

  /** Until a pod changes, or a little while. */
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
    this.claim(title, { ok: last.ok, saw: `${last.saw}, for ${((this.now() - begun) / 1000).toFixed(1)} s` })
  }

  async undoLater(undo: Undo): Promise<void> {
    const entries = await noteUndo(this.lab, this.#by, this.#request.name, [undo])
    for (const { id } of entries) this.#kept.add(id)
  }

  async fault(spec: FaultSpec): Promise<void> {
    const { context, notice } = this.#request
    const why = refusal(context.provider, spec)
    if (why !== undefined) throw new LabError('fault-impossible', `${spec.fault}: ${why}`)
    const injection = await this.#faults.aim(context, spec, '')
    const { fault } = injection
    await fault.possible(context)
    const acts = await this.#faults.inject(context, injection, () => {
      this.#note('act', fault.detail)
      notice(fault.detail)
      return Promise.resolve()
    })
    // It is among the faults of the report; what did not happen proves nothing.
    if (!acts) throw new ClaimFailed(injection.error ?? injection.acting?.saw)
  }

  /** What the journal calls it in the report. */
  get #by(): string {
    return `lab run ${this.lab.name} ${this.#request.name}`
  }

  /** Faults, and fences for them; what the experiment itself made stays until its end. */
  async #healFaults(): Promise<void> {
    const { healer, plan, notice } = this.#request
    if (this.#faults.open.length === 0) return
    notice('healing: bringing the lab back to what its file says')
    this.#note('act', 'faults undone')
    const undo = (): Promise<void> => this.#faults.undo(healer, ({ id }) => !this.#kept.has(id))
    await undo()
    await refuseWhileFenced(this.lab)
    await runPlan(plan, 'apply', healer, () => undefined)
    // What needed the lab to be up: a node is uncordoned by an API server.
    await undo()
    await this.#faults.seeGone(healer)
  }

  heal(): Promise<void> {
    return this.#healFaults()
  }

  get reach(): Reach {
    return this.#request.context
  }

  get #judgement(): Judgement {
    return judge(this.#records, this.#readBack, undefined, 'many')
  }

  /**
   * Ends every member at once, and starts them again: one that goes on could tell the others what it has in memory.
   */
  async #endAll({ workload, replicas, are, within }: Members): Promise<void> {
    const begun = performance.now()
    const scale = (count: number): Promise<string> =>
      this.kubectl(['scale', workload, `--replicas=${String(count)}`])
    const members = (): readonly PodSeen[] => this.history.pods.filter(are)
    const said = (): string =>
      members()
        .map(({ name, node, ready, phase }) => `${name} on ${node ?? 'no node'}, ${ready ? 'ready' : phase}`)
        .join('; ') || 'none'
    const machine = machinesWith(this.lab, 'control-plane')[0]?.name ?? ''
    const noted = await noteUndo(this.lab, this.#by, 'read-back', [
      { do: 'scale', machine, workload, replicas },
    ])
    await this.act('end every member, before what it was told is read back', () => scale(0))
    await this.until('no member is left that could answer from its memory', within, () => ({
      ok: members().length === 0,
      saw: said(),
    }))
    await this.act('start them again', () => scale(replicas))
    for (const entry of noted) await strike(this.lab, entry)
    await this.until('as many others are ready', within, () => ({
      ok: members().length === replicas && members().every(({ ready }) => ready),
      saw: said(),
    }))
    this.#diskProof = {
      ok: true,
      saw: `all of ${workload} had ended; others answered: ${said()}`,
      seconds: Math.round(performance.now() - begun) / 1000,
    }
  }

  async ledger(
    storeOf: (run: string) => Store,
    during: () => Promise<void>,
    members?: Members,
  ): Promise<void> {
    const { ledgerPath, notice } = this.#request
    const store = storeOf(runName(this.#started))
    const soon = (): AbortSignal => AbortSignal.timeout(answerDeadline * 1000)
    const file = await createLedger(ledgerPath)
    const client = ledgerClient({
      stores: [store],
      ledger: file,
      seen: (record) => this.#records.push(record),
    })
    const acknowledged = (): boolean => this.#records.some(({ type }) => type === 'acknowledged')
    try {
      await store.create(AbortSignal.any([this.signal, soon()]))
      await client.mark('begin')
      client.start()
      await this.until('a client outside the cluster is answered', answerDeadline, () => ({
        ok: acknowledged(),
        saw: acknowledged() ? 'the first write was acknowledged' : 'nothing was acknowledged',
      }))
      await delay(baseline, undefined, { signal: this.signal })
      await client.mark('fault')
      await during()
      await client.mark('end')
      await client.stop()
      if (members) await this.#endAll(members)
    } finally {
      await client.stop().finally(() => file.close())
      try {
        if (this.#records.length > 0) {
          const begun = performance.now()
          this.#readBack = await store.readBack(soon())
          const seconds = Math.round(performance.now() - begun) / 1000
          if (store.source !== undefined) this.#diskProof ??= { ok: false, saw: store.source, seconds }
        }
        // What is not as it should be stays, to be looked at.
        if (this.#judgement.findings.length === 0) await store.remove(soon())
      } catch (error) {
        notice(`ledger: ${messageOf(error)}`)
      }
    }
    const gap = this.#judgement.gaps
      .filter(({ operation }) => operation === 'write')
      .reduce((longest, { length }) => Math.max(longest, length), 0)
    this.figure('longest time without an acknowledged write', gap)
  }

  facts(): RunFacts {
    const { name, context, versions } = this.#request
    return {
      lab: this.lab.name,
      scenario: {
        name,
        description: experiments[name],
        inject: [],
        expect: {},
        heal: 'recovery',
        deadline: 0,
      },
      started: this.#started,
      seconds: (performance.now() - this.#begun) / 1000,
      interrupted: this.#interrupted,
      provider: context.provider.name,
      failover: this.lab.failover,
      fencing: this.lab.fencing,
      volume: this.lab.database?.volume.kind,
      versions,
      faults: this.#faults.facts(),
      checks: this.#checks,
      looks: this.#looks,
      diskProof: this.#diskProof,
      ledger: this.#records.length === 0 ? undefined : { records: this.#records, judgement: this.#judgement },
      experiment: { claims: this.#claims, figures: this.#figures, events: this.#events },
    }
  }

  #save(): Promise<void> {
    return this.#request.save(this.facts())
  }

  async #look(when: When, context: Context): Promise<boolean> {
    const { plan, patience } = this.#request
    const steady = await steadyState(plan, when, context, patience)
    this.#checks = [...this.#checks, ...steady.checks]
    this.#looks = [...this.#looks, ...steady.looks]
    return steady.ok
  }

  async #makeNamespace(machine: string): Promise<void> {
    const { healer } = this.#request
    await this.undoLater({ do: 'delete-namespace', machine, namespace: this.namespace })
    await healer.kubectl.run(['create', 'namespace', this.namespace])
    // A pod cannot be made before its namespace has the account that it runs as.
    await this.until('the namespace is ready', 30, async () => {
      await this.kubectl(['get', 'serviceaccount', 'default'])
      return { ok: true, saw: this.namespace }
    })
    // That is no claim of anybody's.
    this.#claims.length = 0
  }

  /** Nothing that happens to a pod of the namespace after this is missed. */
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
    )
  }

  /** @param cut whether the experiment was cut short, and could not put back what `lab up` had deployed */
  async #cleanUp(cut: boolean): Promise<void> {
    const { experiment, healer, plan, notice } = this.#request
    await this.#healFaults()
    if (cut && experiment.workload) {
      await refuseWhileFenced(this.lab)
      await runPlan(plan, 'apply', healer, () => undefined)
    }
    notice('removing what was made')
    const failed = await undoAll(healer)
    for (const text of failed) notice(`not undone: ${text}`)
  }

  async run(): Promise<RunFacts> {
    const { experiment, context, healer, notice } = this.#request
    const { signal } = context
    await this.#save()
    notice('steady state: asking every check')
    if (!(await this.#look('before', context))) {
      this.#interrupted = signal.aborted
      await this.#save()
      if (signal.aborted) throw new Interrupted()
      return this.facts()
    }
    let problem: unknown
    let failed = false
    try {
      const [master] = machinesWith(this.lab, 'control-plane')
      if (!experiment.workload) await this.#makeNamespace(master?.name ?? '')
      await this.#follow()
      await experiment.run(this)
    } catch (error) {
      // It is among the claims, and all that can be said.
      failed = error instanceof ClaimFailed
      if (!failed) problem = error
    }
    try {
      await this.#cleanUp(signal.aborted || problem !== undefined || failed)
      if (!signal.aborted) {
        notice('steady state: asking every check again')
        await this.#look('after', healer)
      }
    } catch (error) {
      problem ??= error
    }
    this.#ending.abort()
    this.#interrupted = signal.aborted || problem !== undefined
    await this.#save()
    if (signal.aborted) throw new Interrupted()
    if (problem !== undefined) throw problem as Error
    return this.facts()
  }
}

/** Runs one experiment. @returns what is to be reported, already saved */
export const runExperiment = async (request: ExperimentRequest): Promise<RunFacts> => {
  const { lab, provider } = request.context
  const workers = machinesWith(lab, 'worker').length
  if (workers < request.experiment.workers)
    throw new LabError(
      'too-few-workers',
      `${request.name} needs ${String(request.experiment.workers)} workers, ${lab.name} has ${String(workers)}`,
      { exitCode: exitCodes.usage, hint: `add a worker to ${lab.file}` },
    )
  const off = (await provider.states(lab)).filter(({ status }) => status !== 'running')
  if (off.length > 0)
    throw new LabError(
      'not-up',
      `${lab.name}: not running: ${off.map(({ name }) => name).join(', ')}; an experiment would prove nothing`,
      { hint: `lab up ${lab.name}` },
    )
  return new Run(request).run()
}
