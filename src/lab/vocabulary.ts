import type { DraftFile, Found, Path } from './draft.js'
import type { ExperimentWords, FaultFields } from './schema.js'

/**
 * The words of a lab file whose meaning lives elsewhere: faults and experiments. Whoever reads lab files brings them
 * along, so that a new one is a file of its own and nothing here knows it by name.
 */

/** A fault as its author wrote it; any field may be bad, and is then undefined. */
export type DraftFault = Readonly<Record<string, unknown>>

/** What reading a lab file must know of a fault. */
export interface FaultForm extends FaultFields {
  /** The fields as the rest of the program sees them: percentages as numbers, durations as milliseconds. */
  readonly complete: (written: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>
  /** What is wrong with whom it hits. */
  readonly rules: (file: DraftFile, fault: DraftFault, path: Path) => Found
  /** The words for all that it touches; undefined for one that is bad. */
  readonly touches: (fault: DraftFault) => readonly (string | undefined)[]
  /** Whether the kubelets of the workers that it touches are not heard while it acts. */
  readonly silences: (fault: DraftFault, file: DraftFile) => boolean
}

export interface Vocabulary {
  readonly faults: readonly FaultForm[]
  readonly experiments: readonly ExperimentWords[]
}
