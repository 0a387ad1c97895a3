import type { FaultRecord } from '../fault/fault.js'
import type { Experiment } from './experiment-context.js'

/** The faults and experiments of a program; the undo actions of its journal follow from them. */
export interface Registry {
  readonly faults: readonly FaultRecord[]
  readonly experiments: readonly Experiment[]
}
