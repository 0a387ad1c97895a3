/** A machine as User-Mode Linux starts it: its folder, disks, address, arguments, user and processor. */
import type { LabId } from '../../identity.js'
import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { hostNumber, parseAddress } from '../../lab/address.js'
import { disksOn, type Lab, type MachineSpec } from '../../lab/lab.js'
import { serialOf } from '../../machine/digest.js'
import { forgetUse, noteUse } from '../../parts/uses.js'
import { type Doubtful, madeLabs, pathsOf } from '../../state.js'
import { macAt } from './bridge.js'
import { type Bind, machineUser } from './confine.js'
import { assignCpu, machinesOnHost, ownCpus } from './processors.js'
import type { StartRequest } from './requests.js'
import { gatewayOf, subnetOf } from './network.js'

export const machineFolder = (lab: LabId, machine: string): string => pathsOf(lab).machine(machine)

export interface Lun {
  /** The raw file behind it, named by the serial number: a LUN keeps its data when others come or go. */
  readonly path: string
  /** Bytes. */
  readonly size: number
  /** IQN of the target that serves it, and its number there. */
  readonly target: string
  readonly lun: number
}

export const lunsOf = (lab: Lab, machine: MachineSpec): readonly Lun[] =>
  disksOn(lab, machine.name).map(({ lun, size, target }) => ({
    path: join(machineFolder(lab, machine.name), `lun-${serialOf(target, lun)}.raw`),
    size,
    target: target.iqn,
    lun,
  }))

/** `ubda` is the root disk, `ubdb` the seed; LUNs follow. */
export const lunDevice = (index: number): string =>
  `/dev/ubd${String.fromCharCode('c'.charCodeAt(0) + index)}`

/** The base disk and kernel that a machine was made with: its copy-on-write disk is useless with others. */
export interface MachineBase {
  readonly kernel: string
  readonly baseDisk: string
}

export const baseOf = (lab: LabId, machine: string): Promise<MachineBase | undefined> =>
  baseIn(machineFolder(lab, machine))

const baseIn = async (folder: string): Promise<MachineBase | undefined> => {
  const text = await readFile(join(folder, 'base.json'), 'utf8').catch(() => '')
  try {
    const { kernel, baseDisk } = JSON.parse(text) as Doubtful<MachineBase>
    return typeof kernel === 'string' && typeof baseDisk === 'string' ? { kernel, baseDisk } : undefined
  } catch {
    // It is missing, or a power cut has emptied it: the machine counts as absent, and is made again.
    return undefined
  }
}

/** Folders of the machines of a lab, in use and in snapshots. */
const machineFolders = async (lab: LabId): Promise<readonly string[]> => {
  const names = (folder: string): Promise<readonly string[]> => readdir(folder).catch(() => [])
  const { snapshots: kept, snapshotDisks } = pathsOf(lab)
  const places = [machineFolder(lab, ''), ...(await names(kept)).map((name) => snapshotDisks(name))]
  return (
    await Promise.all(places.map(async (place) => (await names(place)).map((name) => join(place, name))))
  ).flat()
}

/** Of every lab: a copy-on-write disk is worthless without its base disk. */
export const partsInUse = async (): Promise<readonly string[]> => {
  const used: string[] = []
  for (const lab of await madeLabs())
    for (const machine of await machineFolders(lab)) {
      const base = await baseIn(machine)
      if (base) used.push(base.kernel, base.baseDisk)
    }
  return used
}

/** Records in the cache what a machine is made of, before it is made. */
export const noteMachine = (lab: LabId, machine: string, base: MachineBase): Promise<boolean> =>
  noteUse(machineFolder(lab, machine), [base.kernel, base.baseDisk])

/** Its folder is about to be removed: it needs no parts any more. */
export const forgetMachine = async (lab: LabId, machine: string): Promise<void> => {
  const base = await baseOf(lab, machine)
  if (base) await forgetUse(machineFolder(lab, machine), [base.kernel, base.baseDisk])
}

export const macOf = (machine: MachineSpec): string => macAt(machine.address)

export const linkOf = (lab: Lab, machine: MachineSpec): StartRequest['link'] => {
  const host = String(hostNumber(subnetOf(lab), parseAddress(machine.address) ?? 0))
  return [`b${host}`, `v${host}`, macOf(machine)]
}

/** In the machine's root folder, which contains nothing else of the host. */
export const seen = {
  kernel: '/linux',
  base: '/base',
  root: '/root.cow',
  seed: '/seed',
  lun: (n: number) => `/lun-${String(n)}`,
}

export const bindsOf = (lab: Lab, machine: MachineSpec, base: MachineBase): readonly Bind[] => {
  const folder = machineFolder(lab, machine.name)
  return [
    { from: base.kernel, to: seen.kernel },
    { from: base.baseDisk, to: seen.base },
    { from: join(folder, 'root.cow'), to: seen.root, writable: true },
    { from: join(folder, 'seed.tar'), to: seen.seed },
    ...lunsOf(lab, machine).map(({ path }, index) => ({ from: path, to: seen.lun(index), writable: true })),
  ]
}

/** The supervisor adds the network and the address in it. */
export const argvOf = (lab: Lab, machine: MachineSpec): readonly string[] => [
  seen.kernel,
  `mem=${String(Math.floor(machine.memory / 1024 ** 2))}M`,
  `umid=${machine.name}`,
  'uml_dir=/run/',
  'seccomp=auto',
  `ubd0=${seen.root},${seen.base}`,
  `ubd1r=${seen.seed}`,
  ...lunsOf(lab, machine).map((_, index) => `ubd${String(index + 2)}=${seen.lun(index)}`),
  'root=/dev/ubda',
  'rw',
  'labseed=/dev/ubdb',
  'con=null',
  'con0=null,fd:1',
  'panic=-1',
  // DRBD reserves 1 MiB at boot for each minor device, 32 by default. A target has one for each LUN that it mirrors.
  'drbd.minor_count=8',
  // Identifies the process for people who look at the host's process list; the machine itself ignores it.
  `labfolder=${encodeURI(machineFolder(lab, machine.name))}`,
]

/**
 * The user that a machine runs as, if `lab` can choose one: machines of other labs run as other users, and so do the
 * other machines of this one.
 */
export const userOf = (lab: LabId, machine: string): number | undefined =>
  machineUser(createHash('sha256').update(machineFolder(lab, machine)).digest().readUInt32BE(0))

export const cpuOf = async (lab: Lab, machine: MachineSpec): Promise<number> =>
  assignCpu(lab, machine, ownCpus(), await machinesOnHost(), (name) => machineFolder(lab, name))

/** How a machine's running settings differ from the desired ones, in words; undefined if they do not. */
export const differenceOf = (runs: readonly string[], wanted: readonly string[]): string | undefined => {
  const gone = runs.filter((word) => !wanted.includes(word))
  const come = wanted.filter((word) => !runs.includes(word))
  if (gone.length === 0 && come.length === 0) return undefined
  return `runs with ${gone.join(' ') || 'less'}; it should run with ${come.join(' ') || 'nothing in its place'}`
}

/** A LUN that became larger in the lab file: the machine sees the new size when it boots again. */
export const smallLun = async (lab: Lab, machine: MachineSpec): Promise<string | undefined> => {
  for (const [index, { path, size }] of lunsOf(lab, machine).entries()) {
    const has = (await stat(path).catch(() => undefined))?.size ?? 0
    if (has < size) return `disk ${String(index)} has ${String(has)} bytes; it should have ${String(size)}`
  }
  return undefined
}

export const networkFile = (lab: Lab, machine: MachineSpec): string =>
  [
    'INTERFACE=vec0',
    `ADDRESS=${machine.address}/${String(subnetOf(lab).prefix)}`,
    // Nothing is routed out of the lab, but kubeadm and kube-proxy require a default route.
    `GATEWAY=${gatewayOf(lab)}`,
    '',
  ].join('\n')
