import type { FaultRecord } from '../fault/fault.js'
import type { Experiment } from './experiment-context.js'

/** The faults and experiments that a program knows; the journal's undos follow from them. */
export interface Registry {
  readonly faults: readonly FaultRecord[]
  readonly experiments: readonly Experiment[]
}
