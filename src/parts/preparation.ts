/** How a long preparation reports its progress and asks for consent. */
export interface Preparation {
  readonly signal: AbortSignal
  /**
   * Asks for consent to build something that takes long and that the user did not ask for. Absent: the user asked for
   * it.
   */
  readonly agree?: (question: string) => Promise<Agreement>
  /** A line for people: what is about to be installed, and why. */
  notice(text: string): void
  /** The progress of one part: its position among all parts, its current activity, and its log. */
  progress(update: PartProgress): void
}

/** `nobody`: there was no terminal to ask at. */
export type Agreement = 'yes' | 'no' | 'nobody'

export interface PartProgress {
  /** `kernel`, `kubernetes`, `base-disk`. */
  readonly part: string
  readonly title: string
  /** `building`: also while it is fetched. `spared`: not needed after all, because other parts could be fetched. */
  readonly state: 'waiting' | 'building' | 'built' | 'fetched' | 'cached' | 'spared' | 'failed'
  /** 1-based position among all parts, and their number. */
  readonly index: number
  readonly total: number
  /** 0 to 1, if it is known. */
  readonly fraction?: number
  /** Seconds to go. Absent if they are unknown. */
  readonly remaining?: number
  /** Seconds since it started. */
  readonly elapsed?: number
  /** The last line of the builder's output. */
  readonly note?: string
  readonly log?: string
}
