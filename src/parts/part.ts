/** What a part is: how it is built, or fetched from those who publish it. */
import type { Diagnosis } from './diagnose.js'

/** What a part has at hand while it is built. */
export interface Build {
  /** The directory that becomes the part, empty at first. */
  readonly out: string
  /** A scratch directory, removed afterwards. */
  readonly work: string
  /** Hash of the part's inputs, 12 hexadecimal digits. */
  readonly hash: string
  readonly signal: AbortSignal
  /** The directory of a part that this one needs. */
  need(id: string): string
  /** Shown as what it does now, and kept in the log. */
  say(line: string): void
  /** Runs a command in a sandbox, output to the log. */
  run(command: readonly string[], options?: RunOptions): Promise<void>
}

export interface RunOptions {
  readonly environment?: Record<string, string>
  /** 0 to 19: others of this build come first. */
  readonly niceness?: number
  /** Whether it has the host's network; default: yes. */
  readonly network?: boolean
  /** What it means if it fails and its output does not tell. */
  readonly blame?: Diagnosis
}

export interface Part {
  /** Kebab-case, unique. */
  readonly id: string
  /** For people: `Kubernetes 1.36.3`. */
  readonly title: string
  readonly needs: readonly string[]
  /** Parts of one lane are built one after another; lanes run side by side. */
  readonly lane: string
  /** All it is made from beside other parts: values, and files or folders (absolute). */
  readonly values: unknown
  readonly files: readonly string[]
  /** As measured elsewhere. */
  readonly reference: {
    readonly seconds: number
    /** Of output. */
    readonly lines: number
    /** Mebibytes that stay. */
    readonly kept: number
    /** Mebibytes that it takes beside them, at most, while it is built. */
    readonly scratch: number
  }
  /** How it is had ready-made. What it would be built from is not needed then. */
  readonly fetch?: Fetch | undefined
  build(build: Build): Promise<void>
}

/** Getting a part from those who publish it, which makes it no other part: its version says what it is. */
export interface Fetch {
  /**
   * Who is asked: `https://dl.k8s.io`, and whatever comes behind. Undefined: nobody is.
   * @throws LabError where a setting of the user's is none.
   */
  from(): URL | undefined
  /** Parts that getting it takes. */
  readonly needs: readonly string[]
  /**
   * @param url what `from` said. Leaves `out` empty where it cannot be had: it is built then.
   * @throws LabError `digest-mismatch` where it is another than the pinned one: that is said, and it is built.
   */
  run(build: Build, url: URL): Promise<void>
}
