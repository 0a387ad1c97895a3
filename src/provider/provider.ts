import type { Duplex } from 'node:stream'
import type { Lab, MachineSpec, ProviderName } from '../lab/lab.js'
import type { MachineFile } from '../machine/files.js'
import type { Transport } from '../machine/machine.js'

/** Whether a provider can run machines on this host, found by trying. */
export interface Usability {
  readonly usable: boolean
  /** What was tried and what it said. */
  readonly evidence: string
  /** What would make it usable: commands to type. */
  readonly remedy?: string
}

/** Something of a lab that is still there: a process, a namespace, an interface, a mount, a file. */
export interface Leftover {
  readonly kind: 'process' | 'namespace' | 'interface' | 'mount' | 'file'
  readonly what: string
}

export interface MachineState {
  readonly name: string
  readonly status: 'absent' | 'stopped' | 'running'
  /**
   * Why it is so, as the provider saw it: pid, exit code, the last line of a panic. Of a machine that runs: the same
   * as long as it runs, paused or not, and another one after the next time it was switched on.
   */
  readonly detail: string
  /** Set where the machine runs with other settings than the lab file now wants: 'memory 2048 MiB, wanted 3072 MiB'. */
  readonly differs?: string
  /** Set while it stands still where it was stopped (`pause`), as the provider sees it. */
  readonly paused?: boolean
}

/** What a long preparation says while it works. */
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
  /** Seconds still to go, from an earlier measurement scaled by what was seen so far. */
  readonly remaining?: number
  /** Seconds since it started. */
  readonly elapsed?: number
  /** The last thing the builder printed. */
  readonly note?: string
  readonly log?: string
}

/**
 * Where machines come from. A provider asks the world and remembers nothing; everything beyond these
 * members goes over SSH. A capability is a member that is there or not.
 */
export interface Provider {
  readonly name: ProviderName
  /**
   * How many times longer everything takes on its machines than it should, as where a processor is emulated: whoever
   * waits for a machine waits that much longer. Absent: no longer.
   */
  readonly patience?: number
  /** Tries it out, or says why not. May take seconds. */
  probe(signal: AbortSignal): Promise<Usability>
  /** Everything that this host lacks for this lab, at once; each with a command to type. */
  preflight(lab: Lab): Promise<readonly { readonly problem: string; readonly hint: string }[]>
  /** The slow part: builds and fetches what machines are made of. Idempotent; safe to run twice at once. */
  prepare(lab: Lab, preparation: Preparation): Promise<void>
  /** The lab's network. Idempotent. */
  createNetwork(lab: Lab): Promise<void>
  /** What keeps the network up, once no machine runs: nothing of a stopped lab uses memory. */
  releaseNetwork(lab: Lab): Promise<void>
  /** Whether that network is there, as the world shows it. */
  network(lab: Lab): Promise<{ readonly ok: boolean; readonly saw: string }>
  /**
   * Where this host's kubectl reaches the API server of a lab that has a control plane:
   * `https://127.0.0.1:40123`, `https://192.168.56.11:6443`.
   */
  apiEndpoint(lab: Lab): Promise<string>
  /** One entry per machine of the lab, and per machine that runs but is no longer in the lab file. Fast. */
  states(lab: Lab): Promise<readonly MachineState[]>
  /**
   * Creates the machine where it is absent, and boots it. Returns when it runs, long before SSH answers.
   * The files are there from the first moment of its boot, or where that cannot be, not at all: the step
   * that checks them writes them then.
   */
  start(lab: Lab, machine: MachineSpec, files: readonly MachineFile[]): Promise<void>
  /**
   * Off, now, without telling it: a power cut. Disks stay. With `run`, the `detail` of its state while it ran: only that
   * run of it; one that was switched on since goes on, as does one whose provider cannot tell runs apart.
   */
  cut(lab: Lab, machine: string, only?: { readonly run?: string }): Promise<void>
  /**
   * Lets the machine stand still where it is, its memory kept; `resume` lets it go on as if nothing had happened.
   * Absent: this provider cannot. Both are idempotent, and a machine that does not run is left alone.
   */
  readonly pause?: (lab: Lab, machine: string) => Promise<void>
  readonly resume?: (lab: Lab, machine: string) => Promise<void>
  /** Removes the machine with its disks. */
  remove(lab: Lab, machine: string): Promise<void>
  /** Commands as root on the machine. */
  transport(lab: Lab, machine: MachineSpec): Promise<Transport>
  /** A TCP connection to an address inside the lab's network. */
  dial(lab: Lab, host: string, port: number): Promise<Duplex>
  /** What a user's own ssh needs as its ProxyCommand; undefined: it reaches the machines by itself. */
  proxyCommand(lab: Pick<Lab, 'name'>): string | undefined
  /** The block device under which a target machine sees its n-th LUN: `/dev/ubdc`. */
  lunDevice(index: number): string
  /** The archive, on this host, of an image that nodes lack; undefined: it was not built. */
  imageArchive(reference: string): Promise<string | undefined>
  /** Files of the parts cache that machines of any lab are made of, and must not lose. */
  partsInUse(): Promise<readonly string[]>
  /** Where the last lines of the machine's console are. */
  consoleLog(lab: Lab, machine: string): string
  /** Ends everything of the lab, whatever state it is in. */
  destroy(lab: Pick<Lab, 'name'>): Promise<void>
  /** Looks afresh for anything of the lab that is still there. */
  leftovers(lab: Pick<Lab, 'name'>): Promise<readonly Leftover[]>
}
