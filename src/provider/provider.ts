/**
 * Where machines come from. A provider observes the system and keeps no state. It has a small core, which is enough
 * for existing machines that answer SSH, and optional capability groups. A group is present as a whole or not at all:
 * plans, faults and commands leave out what needs a missing one, and say why (`lacks`).
 */
import type { Duplex } from 'node:stream'
import type { LabId } from '../identity.js'
import { exitCodes, LabError } from '../error.js'
import { apiAddressOf, type Lab, type MachineSpec, type ProviderName } from '../lab/lab.js'
import type { MachineFile } from '../machine/machine-file.js'
import type { NeededPart } from '../parts/parts.js'
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
  /** Whether it may work anyway: with `--yes` the user tries it. */
  readonly may?: boolean
}

/** Something of a lab that still exists: a process, a namespace, an interface, a mount, a file, an object of a cluster. */
export interface Leftover {
  readonly kind: 'process' | 'namespace' | 'interface' | 'mount' | 'file' | 'machine' | 'object'
  readonly what: string
}

export interface MachineState {
  readonly name: string
  readonly status: 'absent' | 'stopped' | 'running'
  /**
   * The reason for the state: pid, exit code, the last line of a panic. For a running machine it identifies the run:
   * it stays the same, paused or not, until the machine is switched on again.
   */
  readonly detail: string
  /** Present if the machine runs with settings other than those of the lab file: '2048 MiB of memory instead of 3072 MiB'. */
  readonly differs?: string
  /** Whether the provider reports it as paused. */
  readonly paused?: boolean
}

/** Where the SSH server of a machine is that lab did not make. */
export interface SshServer {
  readonly address: string
  readonly port: number
  /** `ssh-ed25519 AAAA…` */
  readonly hostKey: string
  /** The ProxyCommand for a user's own ssh. Undefined: ssh reaches the machine directly. */
  readonly proxyCommand?: string
}

export interface Provider extends Partial<Groups> {
  readonly name: ProviderName
  /** Why commands cannot run on its machines: `reaches no node over SSH`. Absent: they answer SSH. */
  readonly withoutSsh?: string
  /** How a machine is reached that lab did not make. Absent: at its address, with the host key that lab gave it. */
  readonly sshServer?: (lab: Lab, machine: string) => Promise<SshServer>
  /**
   * The factor by which its machines are slower than usual, for example because their processor is emulated: every
   * deadline is multiplied by it. Default: 1.
   */
  readonly slowdown?: number
  /**
   * Whether a machine that `states` reports as stopped may run all the same, because it was only asked over the
   * network and did not answer. Absent: `states` knows.
   */
  readonly silentMayRun?: boolean
  /** The provider for one lab. Absent: it is the same for all labs. */
  readonly forLab?: (lab: LabId) => Promise<Provider>
  /** Tries the provider, or says why it cannot be used. May take seconds. */
  probe(signal: AbortSignal): Promise<Usability>
  /** Everything that this host lacks for the lab, each with a command to type. */
  preflight(lab: Lab): Promise<readonly Problem[]>
  /** The slow part: builds and fetches what machines are made of. Idempotent; two processes may run it at once. */
  prepare(lab: Lab, preparation: Preparation): Promise<void>
  /** One entry per machine of the lab, and per running machine that is no longer in the lab file. Fast. */
  states(lab: Lab): Promise<readonly MachineState[]>
  /** A TCP connection to an address inside the lab's network. */
  dial(lab: Lab, host: string, port: number): Promise<Duplex>
  /** Ends everything of the lab, whatever its state. */
  destroy(lab: LabId): Promise<void>
  /**
   * Looks again for anything of the lab that still exists.
   * @throws LabError if it cannot be asked; with the code `not-asked` if no record says that it has anything of the lab
   */
  leftovers(lab: LabId): Promise<readonly Leftover[]>
}

/** The capabilities that a provider may have beyond the core. */
export interface Groups {
  readonly machines: Machines
  readonly power: Power
  readonly pause: Pause
  readonly network: Network
  readonly disks: Disks
  readonly images: Images
  readonly console: Console
  readonly snapshots: Snapshots
  readonly loan: Loan
  readonly equipment: Equipment
}

/** Creates the machines of a lab. */
export interface Machines {
  /**
   * Creates the machine if it does not exist, and boots it. Returns when it runs, long before SSH answers. The files
   * are present from the beginning of the boot. A provider that cannot do this leaves them out, and the step that
   * checks them writes them.
   */
  start(lab: Lab, machine: MachineSpec, files: readonly MachineFile[]): Promise<void>
  /** Removes a machine with its disks. */
  remove(lab: Lab, machine: string): Promise<void>
  /**
   * The parts of the cache that machines of a lab are made of, whether they exist or not. Undefined: they come from
   * elsewhere.
   */
  readonly parts?: (lab: Lab) => Promise<readonly NeededPart[]>
  /** Files in the parts cache that machines of any lab depend on. Absent: none. */
  readonly partsInUse?: () => Promise<readonly string[]>
}

/** Switches machines off. */
export interface Power {
  /**
   * Cuts the power at once, without an orderly shutdown. Disks stay.
   * @param only if given, only the run with this `MachineState.detail` is cut and no later one; a provider that
   * cannot distinguish runs cuts any. It also means that the caller relies on it: without certainty that the machine
   * is off, it throws
   */
  cut(lab: Lab, machine: string, only?: { readonly run: string }): Promise<void>
  /** Switches on a machine that is off. Absent: `machines.start` does. */
  readonly on?: (lab: Lab, machine: MachineSpec) => Promise<void>
  /**
   * Whether a machine has no switch and can only be forced to reboot: it loses unwritten data, as in a power cut, and
   * comes back by itself at once. Absent: all have a switch.
   */
  readonly onlyReboots?: (machine: string) => boolean
  /**
   * The same switches as a Redfish service inside the lab, for programs such as fence_redfish. Undefined: there is
   * none.
   */
  readonly redfish?: (lab: Lab) => Promise<RedfishEndpoint>
}

/** Where a lab's power switches are offered, and with which credentials. */
export interface RedfishEndpoint {
  /** `https://192.168.56.1/redfish/v1` */
  readonly url: string
  readonly username: string
  readonly password: string
  /** PEM, self-signed. */
  readonly certificate: string
  /** The file on this host with all of this. */
  readonly file: string
}

/** Pauses a machine with its memory. Both are idempotent and ignore a machine that is off. */
export interface Pause {
  begin(lab: Lab, machine: string): Promise<void>
  /** Resumes the machine. */
  end(lab: Lab, machine: string): Promise<void>
}

/** Creates the network between the machines. */
export interface Network {
  /** Idempotent. */
  create(lab: Lab): Promise<void>
  /** Releases the network once no machine runs: a stopped lab uses no memory. */
  release(lab: Lab): Promise<void>
  /** Whether the network exists. */
  observe(lab: Lab): Promise<{ readonly ok: boolean; readonly saw: string }>
  /**
   * The address at which this host's kubectl reaches the API server of a lab with a control plane:
   * `https://127.0.0.1:40123`. Absent: the address of the control plane itself.
   */
  readonly apiEndpoint?: (lab: Lab) => Promise<string>
  /** The ProxyCommand for a user's own ssh. Absent: ssh reaches the machines directly. */
  readonly proxyCommand?: (lab: LabId) => string
}

/** Gives a target machine a disk for each LUN. */
export interface Disks {
  /** The block device of a target machine's n-th LUN: `/dev/ubdc`. */
  readonly lunDevice: (index: number) => string
}

/** Has images for nodes that cannot reach a registry. */
export interface Images {
  /** The archive of an image on this host, for that machine's processor; undefined if it was not built. */
  archive(reference: string, lab: LabId, machine: string): Promise<string | undefined>
}

/** Keeps the console output of machines. */
export interface Console {
  /** The file on this host with the last lines. */
  log(lab: Lab, machine: string): string
}

/** Copies the disks of a lab. The machines must not write meanwhile: they are off, or paused. */
export interface Snapshots {
  /** The size of a copy in bytes, without its holes. */
  size(lab: Lab): Promise<number>
  /** Copies everything that defines the machines into an existing empty folder. */
  save(lab: Lab, into: string): Promise<void>
  /** Replaces the machines of the lab, all of which are off, by such a copy. The copy stays unchanged. */
  load(lab: LabId, from: string): Promise<void>
}

/**
 * Its machines belong to somebody else: they are reserved for a lab, changed with a record of their earlier state, and
 * given back as they were.
 */
export interface Loan {
  /** Whether the lab uses the machine. */
  taken(lab: Lab, machine: MachineSpec): Promise<{ readonly ok: boolean; readonly saw: string }>
  /** Locks it for the lab, and gives the lab's key access. @throws LabError `host-taken`, which names the holder */
  take(lab: Lab, machine: MachineSpec, progress: (note: string) => void): Promise<void>
  /** Undoes everything that was recorded, and compares the machine with its earlier state. */
  giveBack(lab: Lab, machine: MachineSpec, progress: (note: string) => void): Promise<void>
  /** Whether it was given back. */
  returned(lab: Lab, machine: MachineSpec): Promise<{ readonly ok: boolean; readonly saw: string }>
}

/** Installs what machines need that do not come from lab's own base disk. */
export interface Equipment {
  /** Whether the machines of this lab lack it at first. */
  needed(lab: Lab): boolean
  /** Whether a machine has what its role needs. @param files of the lab file, which `configure` writes later */
  equipped(
    lab: Lab,
    machine: MachineSpec,
    files: readonly MachineFile[],
  ): Promise<{ readonly ok: boolean; readonly saw: string }>
  equip(
    lab: Lab,
    machine: MachineSpec,
    files: readonly MachineFile[],
    progress: (note: string) => void,
  ): Promise<void>
}

/** Whether lab installs on the machines of this lab what they need; otherwise they have it from the beginning. */
export const equips = (provider: Provider, lab: Lab): boolean => provider.equipment?.needed(lab) === true

const sentences: Readonly<Record<keyof Groups, string>> = {
  machines: 'does not make machines',
  power: 'cannot switch a machine off',
  pause: 'cannot pause a machine',
  network: 'does not make a network',
  disks: 'gives a machine no disks for LUNs',
  images: 'has no images to load',
  console: 'keeps no console',
  snapshots: 'cannot copy the disks of a lab',
  loan: 'makes its own machines',
  equipment: 'makes machines that have all that they need',
}

/**
 * Why something that needs this group is unavailable: `hosts cannot switch a machine off`; undefined if it is
 * available.
 */
export const lacks = (provider: Provider, group: keyof Groups): string | undefined =>
  provider[group] === undefined ? `${provider.name} ${sentences[group]}` : undefined

/**
 * The group.
 * @throws LabError `not-offered` with the reason if the provider lacks it
 */
export const groupOf = <Name extends keyof Groups>(provider: Provider, name: Name): Groups[Name] => {
  const group: Partial<Groups>[Name] = provider[name]
  if (group === undefined)
    throw new LabError('not-offered', `${provider.name} ${sentences[name]}`, { exitCode: exitCodes.host })
  return group
}

/** Why no command can run on a machine; undefined if commands can. */
export const lacksSsh = ({ name, withoutSsh }: Provider): string | undefined =>
  withoutSsh === undefined ? undefined : `${name} ${withoutSsh}`

/** Why a machine that is off cannot be switched on; undefined if it can. */
export const lacksStart = (provider: Provider): string | undefined =>
  provider.power?.on ? undefined : lacks(provider, 'machines')

/** Why a machine cannot be switched off and on again; undefined if it can. */
export const lacksSwitch = (provider: Provider): string | undefined =>
  lacks(provider, 'power') ??
  (lacksStart(provider) === undefined ? undefined : `${provider.name} cannot switch on a machine that is off`)

/** Why programs in the lab cannot use the power switches of its machines; undefined if they can. */
export const lacksSwitches = (provider: Provider): string | undefined =>
  provider.power?.redfish ? undefined : `${provider.name} has no power switches for programs in the lab`

/**
 * The address at which this host's kubectl reaches the API server of a lab.
 * @throws if the lab has no control plane
 */
export const apiEndpointOf = async (provider: Provider, lab: Lab): Promise<string> => {
  if (provider.network?.apiEndpoint) return provider.network.apiEndpoint(lab)
  return `https://${apiAddressOf(lab)}:6443`
}
