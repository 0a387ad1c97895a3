import type { Draft, DraftFile, Found, Path } from './draft.js'
import type { WrittenFault } from './fault-spec.js'
import type { ExperimentWords, FaultWords } from './schema.js'

/**
 * The names in a lab file that other modules define: faults and experiments. Readers of lab files pass them in, so
 * that a new one is a file of its own and no module here knows it by name.
 */

/** A fault as its author wrote it; any field may be invalid and is then undefined. */
export type DraftFault = Draft<WrittenFault>

/** What reading a lab file needs to know of a fault. */
export interface FaultForm extends FaultWords {
  /** What is wrong with the machines it hits. */
  readonly rules: (file: DraftFile, fault: DraftFault, path: Path) => Found
  /** The words for every machine it touches; undefined for an invalid word. */
  readonly touches: (fault: DraftFault) => readonly (string | undefined)[]
  /** Whether the control plane stops hearing the kubelets of the workers it hits. */
  readonly silences: (fault: DraftFault, file: DraftFile) => boolean
}

export interface Vocabulary {
  readonly faults: readonly FaultForm[]
  readonly experiments: readonly ExperimentWords[]
}
