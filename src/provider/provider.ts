/**
 * Where machines come from. A provider asks the world and remembers nothing. It has a small core, which is enough for
 * machines that exist already and answer SSH, and groups of further capabilities. A group is there as a whole or not
 * at all: plans, faults and commands leave out what needs one that is not there, and say why (`lacks`).
 */
import type { Duplex } from 'node:stream'
import type { LabId } from '../identity.js'
import { exitCodes, LabError } from '../error.js'
import { type Lab, type MachineSpec, machinesWith, type ProviderName } from '../lab/lab.js'
import type { MachineFile } from '../machine/files.js'
import type { Preparation } from '../parts/preparation.js'

/** Whether a provider can run machines on this host, found by trying. */
export interface Usability {
  readonly usable: boolean
  /** What was tried and what it said. */
  readonly evidence: string
  /** What would make it usable: commands to type. */
  readonly remedy?: string
}

/** What this host lacks for a lab. */
export interface Problem {
  readonly problem: string
  /** A command to type. */
  readonly hint: string
  /** It may go well all the same: whoever says so (`--yes`) may try. */
  readonly may?: boolean
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
  /** Set while it is paused, as the provider sees it. */
  readonly paused?: boolean
}

export interface Provider extends Partial<Groups> {
  readonly name: ProviderName
  /**
   * How many times longer everything takes on its machines than it should, as where a processor is emulated: every
   * deadline is that much longer. Absent: no longer.
   */
  readonly patience?: number
  /** Tries it out, or says why not. May take seconds. */
  probe(signal: AbortSignal): Promise<Usability>
  /** Everything that this host lacks for this lab, at once; each with a command to type. */
  preflight(lab: Lab): Promise<readonly Problem[]>
  /** The slow part: builds and fetches what machines are made of. Idempotent; safe to run twice at once. */
  prepare(lab: Lab, preparation: Preparation): Promise<void>
  /** One entry per machine of the lab, and per machine that runs but is no longer in the lab file. Fast. */
  states(lab: Lab): Promise<readonly MachineState[]>
  /** A TCP connection to an address inside the lab's network. */
  dial(lab: Lab, host: string, port: number): Promise<Duplex>
  /** Ends everything of the lab, whatever state it is in. */
  destroy(lab: LabId): Promise<void>
  /** Looks afresh for anything of the lab that is still there. */
  leftovers(lab: LabId): Promise<readonly Leftover[]>
}

/** What a provider may be capable of beyond the core. */
export interface Groups {
  readonly machines: Machines
  readonly power: Power
  readonly pause: Pause
  readonly network: Network
  readonly disks: Disks
  readonly images: Images
  readonly console: Console
  readonly snapshots: Snapshots
}

/** It makes the machines of a lab. */
export interface Machines {
  /**
   * Creates the machine where it is absent, and boots it. Returns when it runs, long before SSH answers.
   * The files are there from the first moment of its boot, or where that cannot be, not at all: the step
   * that checks them writes them then.
   */
  start(lab: Lab, machine: MachineSpec, files: readonly MachineFile[]): Promise<void>
  /** Removes the machine with its disks. */
  remove(lab: Lab, machine: string): Promise<void>
  /** Files of the parts cache that machines of any lab are made of, and must not lose. Absent: none. */
  readonly partsInUse?: () => Promise<readonly string[]>
}

/** It switches machines off. */
export interface Power {
  /**
   * Off, now, without telling it: a power cut. Disks stay.
   * @param only where given: only the run of the machine that `MachineState.detail` describes so, and none that was
   *   begun since; a provider that cannot tell them apart cuts any
   */
  cut(lab: Lab, machine: string, only?: { readonly run: string }): Promise<void>
  /** Switches on a machine that is off. Absent: `machines.start` does. */
  readonly on?: (lab: Lab, machine: MachineSpec) => Promise<void>
}

/** It stops a machine where it stands, its memory kept. Both are idempotent, and leave one alone that does not run. */
export interface Pause {
  begin(lab: Lab, machine: string): Promise<void>
  /** It goes on as if nothing had happened. */
  end(lab: Lab, machine: string): Promise<void>
}

/** It makes the network that joins the machines. */
export interface Network {
  /** Idempotent. */
  create(lab: Lab): Promise<void>
  /** Ends what keeps the network up, once no machine runs: nothing of a stopped lab uses memory. */
  release(lab: Lab): Promise<void>
  /** Whether the network is there, as the world shows it. */
  look(lab: Lab): Promise<{ readonly ok: boolean; readonly saw: string }>
  /**
   * Where this host's kubectl reaches the API server of a lab that has a control plane: `https://127.0.0.1:40123`.
   * Absent: at the address of the control plane itself.
   */
  readonly apiEndpoint?: (lab: Lab) => Promise<string>
  /** What a user's own ssh needs as its ProxyCommand. Absent: it reaches the machines by itself. */
  readonly proxyCommand?: (lab: LabId) => string
}

/** It gives a target machine a disk for each LUN. */
export interface Disks {
  /** The block device under which a target machine sees its n-th LUN: `/dev/ubdc`. */
  readonly lunDevice: (index: number) => string
}

/** It has images for nodes that reach no registry. */
export interface Images {
  /** The archive of an image, on this host; undefined: it was not built. */
  archive(reference: string): Promise<string | undefined>
}

/** It keeps what machines say on their consoles. */
export interface Console {
  /** The file on this host with the last lines. */
  log(lab: Lab, machine: string): string
}

/** It copies the disks of a lab. The machines write nothing meanwhile: they are off, or paused. */
export interface Snapshots {
  /** Bytes that a copy takes, without its holes. */
  size(lab: Lab): Promise<number>
  /** Copies all that makes the machines what they are into a folder that is there and empty. */
  save(lab: Lab, into: string): Promise<void>
  /** Puts such a copy in the place of the machines of the lab, all of which are off. The copy stays as it is. */
  load(lab: LabId, from: string): Promise<void>
}

const sentences: Readonly<Record<keyof Groups, string>> = {
  machines: 'does not make machines',
  power: 'cannot switch a machine off',
  pause: 'cannot stop a machine where it stands',
  network: 'does not make a network',
  disks: 'gives a machine no disks for LUNs',
  images: 'has no images to load',
  console: 'keeps no console',
  snapshots: 'cannot copy the disks of a lab',
}

/** Why what needs this group cannot be had: `hosts cannot switch a machine off`; undefined: it can. */
export const lacks = (provider: Provider, group: keyof Groups): string | undefined =>
  provider[group] === undefined ? `${provider.name} ${sentences[group]}` : undefined

/** The group. @throws LabError `not-offered` with the reason, where the provider lacks it. */
export const groupOf = <Name extends keyof Groups>(provider: Provider, name: Name): Groups[Name] => {
  const group: Partial<Groups>[Name] = provider[name]
  if (group === undefined)
    throw new LabError('not-offered', `${provider.name} ${sentences[name]}`, { exitCode: exitCodes.host })
  return group
}

/** Why a machine that is off cannot be switched on; undefined: it can. */
export const lacksStart = (provider: Provider): string | undefined =>
  provider.power?.on ? undefined : lacks(provider, 'machines')

/** Why a machine cannot be switched off, and on again; undefined: it can. */
export const lacksSwitch = (provider: Provider): string | undefined =>
  lacks(provider, 'power') ??
  (lacksStart(provider) === undefined ? undefined : `${provider.name} cannot switch a machine on that is off`)

/** Where this host's kubectl reaches the API server of a lab. @throws where it has no control plane */
export const apiEndpointOf = async (provider: Provider, lab: Lab): Promise<string> => {
  if (provider.network?.apiEndpoint) return provider.network.apiEndpoint(lab)
  const [controlPlane] = machinesWith(lab, 'control-plane') as readonly (MachineSpec | undefined)[]
  if (!controlPlane) throw new Error(`${lab.name} has no control plane`)
  return `https://${controlPlane.address}:6443`
}
