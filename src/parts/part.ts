/** The definition of a part: how it is built, or fetched from its publisher. */
import type { Diagnosis } from './diagnose.js'

/** What a part can use while it is built. */
export interface Build {
  /** The folder that becomes the part, empty at first. */
  readonly out: string
  /** A scratch folder, removed afterwards. */
  readonly work: string
  /** Hash of the part's inputs, 12 hexadecimal digits. */
  readonly hash: string
  readonly signal: AbortSignal
  /** The directory of a part that this one needs. */
  need(id: string): string
  /** Shown as the current activity, and kept in the log. */
  say(line: string): void
  /** Runs a command in a sandbox, output to the log. */
  run(command: readonly string[], options?: RunOptions): Promise<void>
}

export interface RunOptions {
  readonly environment?: Record<string, string>
  /** 0 to 19; a higher value yields to other builds. */
  readonly niceness?: number
  /** Whether it has the host's network; default: yes. */
  readonly network?: boolean
  /** The explanation if it fails and its output gives none. */
  readonly blame?: Diagnosis
}

export interface Part {
  /** Kebab-case, unique. */
  readonly id: string
  /** For people: `Kubernetes 1.36.3`. */
  readonly title: string
  readonly needs: readonly string[]
  /** Parts of one lane are built one after another; lanes run concurrently. */
  readonly lane: string
  /** All its inputs besides other parts: values, and files or folders (absolute paths). */
  readonly values: unknown
  readonly files: readonly string[]
  /** Measured on another host. */
  readonly reference: {
    readonly seconds: number
    /** Of output. */
    readonly lines: number
    /** Mebibytes that remain. */
    readonly kept: number
    /** Mebibytes that the build needs in addition, at most. */
    readonly scratch: number
  }
  /** How to fetch it ready-made. Its inputs are not needed then. */
  readonly fetch?: Fetch | undefined
  build(build: Build): Promise<void>
}

/** Fetches a part from its publisher. The part is the same either way, since its version identifies it. */
export interface Fetch {
  /**
   * The address to ask: `https://dl.k8s.io`, followed by any path. Undefined: nobody is asked.
   * @throws LabError for an invalid setting of the user
   */
  from(): URL | undefined
  /** Parts that are needed for fetching. */
  readonly needs: readonly string[]
  /**
   * @param url the result of `from`. Leaves `out` empty if the part is not available there, which is then built.
   * @throws LabError `digest-mismatch` if the file differs from its pin; this is reported, and the part is built
   */
  run(build: Build, url: URL): Promise<void>
}
