/**
 * What differs between VirtualBox and libvirt, through their own tools: `vagrant status` takes a second for the same.
 */
import { type LabId, wordOf } from '../../identity.js'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseSubnet, type Subnet } from '../../lab/address.js'
import type { Lab, MachineSpec } from '../../lab/lab.js'
import { pathsOf } from '../../state.js'
import type { Leftover } from '../provider.js'

export type VagrantKind = 'virtualbox' | 'libvirt'

/** @throws for an invalid subnet; the loader has checked it */
export const subnetOf = (cidr: string): Subnet => {
  const subnet = parseSubnet(cidr)
  if (!subnet) throw new Error(`${cidr} is not a subnet: the loader has checked it`)
  return subnet
}

/** A machine as the hypervisor reports it. */
export interface Found {
  /** Within the lab: `worker1`. */
  readonly name: string
  /** The id in Vagrant's records. */
  readonly id: string
  readonly running: boolean
  /**
   * The reason for the state: `shut down`, `its power was cut`. For a running machine, it changes every time it is
   * switched on.
   */
  readonly detail: string
  /** Whether it is paused. */
  readonly paused?: boolean
  /** Bytes; undefined if the hypervisor does not say. */
  readonly memory: number | undefined
  readonly cpus: number | undefined
}

/**
 * Vagrant creates the machines; everything after that uses the hypervisor itself. What cannot be asked or done is an
 * error, never an answer that there is nothing.
 */
export interface Hypervisor {
  /** Its command line program, whose presence is checked. */
  readonly program: string
  /** How many machines Vagrant may create at the same time. */
  readonly together: number
  machines(lab: LabId): Promise<readonly Found[]>
  /** Creates what the lab's machines share, before the first one. Idempotent. */
  createNetwork(lab: Lab): Promise<void>
  releaseNetwork(lab: Lab): Promise<void>
  network(lab: Lab): Promise<{ readonly ok: boolean; readonly saw: string }>
  /** Switches on an existing machine with the present settings for memory and processors. */
  start(lab: Lab, machine: MachineSpec): Promise<void>
  cut(lab: LabId, machine: string): Promise<void>
  /** Pauses a machine that runs. */
  pause(lab: LabId, machine: string): Promise<void>
  /** Lets a paused machine go on. */
  resume(lab: LabId, machine: string): Promise<void>
  /** Removes a machine with its disks. */
  remove(lab: LabId, machine: string): Promise<void>
  /** Removes everything of the lab, machines first. Failures show as leftovers. */
  destroy(lab: LabId): Promise<void>
  leftovers(lab: LabId): Promise<readonly Leftover[]>
}

/** As in the Vagrantfile. Lab names contain no underscore, so no other lab has this prefix. */
export const prefixOf = (lab: LabId): string => `lab_${wordOf(lab)}_`

// The lab's folder is the project folder of Vagrant.

export const folderOf = (lab: LabId): string => pathsOf(lab).root
export const dotVagrant = (lab: LabId): string => join(folderOf(lab), '.vagrant')
export const logOf = (lab: LabId): string => join(folderOf(lab), 'vagrant.log')
export const consoleOf = (lab: LabId, machine: string): string =>
  join(dotVagrant(lab), `${machine}.console.log`)

/** Vagrant's records of a machine. */
export const memoryOf = (lab: LabId, kind: VagrantKind, machine: string): string =>
  join(dotVagrant(lab), 'machines', machine, kind)

/** For a file or folder that need not exist. Any other error is thrown: what cannot be read is not absent. */
const orNone =
  <T>(none: T) =>
  (error: NodeJS.ErrnoException): T => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return none
    throw error
  }

/** The id of a machine in Vagrant's records; empty if it has none. */
export const recordedId = async (lab: LabId, kind: VagrantKind, machine: string): Promise<string> =>
  (await readFile(join(memoryOf(lab, kind, machine), 'id'), 'utf8').catch(orNone(''))).trim()

/** Whether Vagrant has a record of any machine of the lab. */
export const hasRecords = async (lab: LabId, kind: VagrantKind): Promise<boolean> => {
  const names = await readdir(join(dotVagrant(lab), 'machines')).catch(orNone<string[]>([]))
  const ids = await Promise.all(names.map((name) => recordedId(lab, kind, name)))
  return ids.some((id) => id !== '')
}

/** Whether Vagrant created this machine completely: the script that gives lab access has run. */
export const isMade = async (lab: LabId, kind: VagrantKind, found: Found): Promise<boolean> =>
  (await recordedId(lab, kind, found.name)) === found.id &&
  existsSync(join(memoryOf(lab, kind, found.name), 'action_provision'))
