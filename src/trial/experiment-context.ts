/** The definition of an experiment, and what it can do with a lab. */
import type { Duplex } from 'node:stream'
import type { UndoAct } from '../fault/undo-act.js'
import type { Undo } from '../journal.js'
import type { FaultSpec, Lab } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { TextFigure } from './facts.js'
import type { PodHistory, PodSeen } from './history.js'
import type { Dialer, Store } from './store.js'

/** What an experiment can do, and how it reports its observations. */
export interface ExperimentContext {
  readonly lab: Lab
  readonly namespace: string
  readonly signal: AbortSignal
  /** Every pod of the namespace, from before the first action on. */
  readonly history: PodHistory
  /** Milliseconds since the history began: the time base of claims. */
  now(): number
  /**
   * Runs kubectl in the namespace.
   * @throws LabError with kubectl's own words
   */
  kubectl(args: readonly string[], options?: { input?: string; timeout?: number }): Promise<string>
  get<T>(...args: readonly string[]): Promise<T>
  /** Applies a manifest of the lab's folder as a person does: `kubectl apply -f`. */
  apply(manifest: string, data?: object): Promise<void>
  /** Applies a kustomization folder of the lab's folder as a person does: `kubectl apply -k`. */
  applyFolder(name: string): Promise<void>
  /** Opens a connection from outside the cluster to an address of the lab's network. */
  dial(host: string, port: number): Promise<Duplex>
  /** The text of a manifest of the lab's folder. */
  manifest(name: string, data?: object): string
  /** Runs a command in a container of a pod, and returns its trimmed output. */
  exec(pod: string, command: readonly string[], container?: string): Promise<string>
  /**
   * Does something and records when.
   * @returns the moment before it, from which claims count
   */
  act(title: string, action: () => Promise<unknown>): Promise<number>
  /**
   * Waits until something is true: a claim of its own, which ends the experiment when it does not come true in time.
   * @returns milliseconds since `from`
   */
  until(
    title: string,
    within: number,
    holds: () => Verdict | Promise<Verdict>,
    from?: number,
  ): Promise<number>
  /** Claims that something stays true for a while. */
  stays(title: string, seconds: number, holds: () => Verdict): Promise<void>
  claim(title: string, verdict: Verdict): void
  /** Records a measurement next to that of the walkthrough. */
  figure(title: string, ms: number, text?: TextFigure): void
  /** Injects a fault as in a scenario, after recording its undo. */
  fault(spec: FaultSpec): Promise<void>
  /**
   * While `during` runs, a client outside the cluster writes and reads all the time; afterwards everything that was
   * acknowledged is read back and judged. At most once in an experiment.
   * @param storeOf given the name to use for what is written
   * @param members all of them end before reading back; absent: their answers may come from memory
   */
  ledger(storeOf: (run: string) => Store, during: () => Promise<void>, members?: Members): Promise<void>
  /** How a client outside the cluster connects. */
  readonly dialer: Dialer
  /** Undoes all faults, and waits until the lab matches its file. */
  heal(): Promise<void>
  /** Records how to undo something that the experiment does itself. */
  undoLater(undo: Undo): Promise<void>
}

/** All pods of a database that `lab up` has deployed. */
export interface Members {
  /** Their controller, as `kind/name`. */
  readonly workload: string
  readonly replicas: number
  readonly are: (pod: PodSeen) => boolean
  /** Seconds for all of them to end, and again for all to become ready. */
  readonly within: number
}

export interface Experiment {
  readonly name: string
  /** A sentence about what it shows. */
  readonly description: string
  /** The number of workers that it needs. */
  readonly workers: number
  /** Names of the faults that it injects: if one is unavailable, the experiment is refused before it starts. */
  readonly faults?: readonly string[]
  /**
   * It works in the namespace default on what `lab up` has deployed, and restores what it changes; other experiments
   * have a namespace of their own.
   */
  readonly workload?: true
  /** Undo actions for what only this experiment does. */
  readonly undos?: readonly UndoAct[]
  run(context: ExperimentContext): Promise<void>
}
