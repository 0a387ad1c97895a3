import type { LabSecrets } from '../state.js'

/** A file of a machine, owned by root. */
export interface MachineFile {
  readonly path: string
  readonly content: string
  /** Octal, default 0644. */
  readonly mode?: number
}

/** What the files of a machine depend on in addition to the lab file. */
export interface FileOptions {
  readonly secrets: LabSecrets
  /** The block device of a target machine's n-th LUN. Absent: the machine has none and serves nothing. */
  readonly lunDevice?: ((index: number) => string) | undefined
  /** Factor for every timeout on slow machines. Default: 1. */
  readonly slowdown?: number
}
