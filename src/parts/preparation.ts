/** What a long preparation says while it works, and whom it asks. */
export interface Preparation {
  readonly signal: AbortSignal
  /** Asks before something is made that takes long and that nobody asked for. Absent: it was asked for. */
  readonly agree?: (question: string) => Promise<Agreement>
  /** A line for people: what is about to be installed, and why. */
  notice(text: string): void
  /** One part: its place among all, what it does now, and where its log is. */
  progress(update: PartProgress): void
}

/** `nobody`: there is nobody who could be asked. */
export type Agreement = 'yes' | 'no' | 'nobody'

export interface PartProgress {
  /** `kernel`, `kubernetes`, `base-disk`. */
  readonly part: string
  readonly title: string
  /** `building`: also while it is fetched. `spared`: not needed after all, since others could be fetched. */
  readonly state: 'waiting' | 'building' | 'built' | 'fetched' | 'cached' | 'spared' | 'failed'
  /** 1-based place among all parts, and how many there are. */
  readonly index: number
  readonly total: number
  /** 0 to 1, as far as it can be known. */
  readonly fraction?: number
  /** Seconds still to go. Absent: nobody can tell. */
  readonly remaining?: number
  /** Seconds since it started. */
  readonly elapsed?: number
  /** The last thing the builder printed. */
  readonly note?: string
  readonly log?: string
}
