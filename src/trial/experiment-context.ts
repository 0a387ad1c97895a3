/** What an experiment is, and what it may do to a lab. */
import type { Duplex } from 'node:stream'
import type { UndoAct } from '../fault/undo-act.js'
import type { Undo } from '../journal.js'
import type { FaultSpec, Lab } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { TextFigure } from './facts.js'
import type { PodHistory, PodSeen } from './history.js'
import type { Reach, Store } from './medium.js'

/** What an experiment may do, and how it says what it saw. */
export interface ExperimentContext {
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
  figure(title: string, ms: number, text?: TextFigure): void
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
  readonly name: string
  /** What it shows, in a sentence. */
  readonly description: string
  /** Workers that it needs. */
  readonly workers: number
  /**
   * It works on what `lab up` has deployed, in the namespace default, and puts back by itself what it changes; others
   * have a namespace of their own.
   */
  readonly workload?: true
  /** Ways to undo what only this experiment makes. */
  readonly undos?: readonly UndoAct[]
  run(context: ExperimentContext): Promise<void>
}
