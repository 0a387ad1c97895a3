/** What of VirtualBox and libvirt differs, asked of their own tools: `vagrant status` takes a second to say as much. */
import { type LabId, wordOf } from '../../identity.js'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseSubnet, type Subnet } from '../../lab/address.js'
import type { Lab, MachineSpec } from '../../lab/lab.js'
import { pathsOf } from '../../state.js'
import type { Leftover } from '../provider.js'

export type VagrantKind = 'virtualbox' | 'libvirt'

/** @throws when the lab's subnet is none: the loader has checked it. */
export const subnetOf = (cidr: string): Subnet => {
  const subnet = parseSubnet(cidr)
  if (!subnet) throw new Error(`${cidr} is not a subnet: the loader has checked it`)
  return subnet
}

/** A machine that the hypervisor knows, as it is there. */
export interface Found {
  /** Within the lab: `worker1`. */
  readonly name: string
  /** The id under which Vagrant keeps it. */
  readonly id: string
  readonly running: boolean
  /** Why it is so: `shut down`, `its power was cut`. Of one that runs, another one after every time it was switched on. */
  readonly detail: string
  /** It runs, and stands still. */
  readonly paused?: boolean
  /** Bytes; undefined: it does not say. */
  readonly memory: number | undefined
  readonly cpus: number | undefined
}

/** Machines are made by Vagrant; everything after that is asked of the hypervisor itself. */
export interface Hypervisor {
  /** Its program on the command line: is it there at all? */
  readonly program: string
  /** How many machines Vagrant may make at the same time. */
  readonly together: number
  machines(lab: LabId): Promise<readonly Found[]>
  /** What is shared by the lab's machines, before the first is made. Idempotent. */
  createNetwork(lab: Lab): Promise<void>
  releaseNetwork(lab: Lab): Promise<void>
  network(lab: Lab): Promise<{ readonly ok: boolean; readonly saw: string }>
  /** Switches on a machine that is there and off, with the memory and processors that are wanted now. */
  start(lab: Lab, machine: MachineSpec): Promise<void>
  cut(lab: LabId, machine: string): Promise<void>
  pause(lab: LabId, machine: string): Promise<void>
  resume(lab: LabId, machine: string): Promise<void>
  /** The machine with its disks. */
  remove(lab: LabId, machine: string): Promise<void>
  /** Everything of the lab, machines first. What fails shows as left over. */
  destroy(lab: LabId): Promise<void>
  leftovers(lab: LabId): Promise<readonly Leftover[]>
}

/** As in the Vagrantfile: names in a lab file have no underscore, so this is no other lab's. */
export const prefixOf = (lab: LabId): string => `lab_${wordOf(lab)}_`

// Where Vagrant keeps what is of a lab: the lab's folder is its project folder.

export const folderOf = (lab: LabId): string => pathsOf(lab).root
export const dotVagrant = (lab: LabId): string => join(folderOf(lab), '.vagrant')
export const logOf = (lab: LabId): string => join(folderOf(lab), 'vagrant.log')
export const consoleOf = (lab: LabId, machine: string): string =>
  join(dotVagrant(lab), `${machine}.console.log`)

/** What Vagrant remembers of a machine. */
export const memoryOf = (lab: LabId, kind: VagrantKind, machine: string): string =>
  join(dotVagrant(lab), 'machines', machine, kind)

/** Whether Vagrant made this very machine, up to its end: the script that lets lab in has run. */
export const isMade = async (lab: LabId, kind: VagrantKind, found: Found): Promise<boolean> => {
  const folder = memoryOf(lab, kind, found.name)
  const id = await readFile(join(folder, 'id'), 'utf8').catch(() => '')
  return id.trim() === found.id && existsSync(join(folder, 'action_provision'))
}
