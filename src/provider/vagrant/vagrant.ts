/**
 * VirtualBox and libvirt through Vagrant. Vagrant creates a machine from the Vagrantfile and the box, and gives lab
 * access; from then on the hypervisor's own tools are used, and everything else goes over SSH.
 */
import type { LabId } from '../../identity.js'
import { existsSync } from 'node:fs'
import { readdir, readFile, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { LabError } from '../../error.js'
import type { Lab, MachineSpec, ProviderName } from '../../lab/lab.js'
import { pathsOf, removeState } from '../../state.js'
import type { Equipment, Leftover, MachineState, Problem, Provider } from '../provider.js'
import {
  consoleOf,
  dotVagrant,
  folderOf,
  type Found,
  hasRecords,
  type Hypervisor,
  isMade,
  logOf,
  prefixOf,
  recordedId,
  type VagrantKind,
} from './hypervisor.js'
import { libvirt } from './libvirt.js'
import type { VagrantHost } from './probe.js'
import { vagrant } from './tools.js'
import { virtualbox } from './virtualbox.js'

// This file loads only what `lab status` needs, and the rest on demand.

const hypervisors: Readonly<Record<VagrantKind, Hypervisor>> = { libvirt, virtualbox }

const lastLine = async (path: string): Promise<string> => {
  const lines = (await readFile(path, 'utf8').catch(() => '')).trimEnd().split('\n')
  return (lines.findLast((line) => line.includes('Kernel panic')) ?? lines.at(-1) ?? '').trim()
}

const mebibytes = (bytes: number): string => `${String(Math.ceil(bytes / 1024 ** 2))} MiB`

/** The difference between a machine and its desired settings, in words; undefined if there is none. */
const differenceOf = (found: Found, wanted: MachineSpec): string | undefined => {
  const differs: string[] = []
  if (found.memory !== undefined && mebibytes(found.memory) !== mebibytes(wanted.memory))
    differs.push(`${mebibytes(found.memory)} of memory instead of ${mebibytes(wanted.memory)}`)
  if (found.cpus !== undefined && found.cpus !== Math.ceil(wanted.cpus))
    differs.push(`${String(found.cpus)} processors instead of ${String(Math.ceil(wanted.cpus))}`)
  return differs.length > 0 ? differs.join('; ') : undefined
}

/** Whether a machine is on, and paused or not. */
const runs = async (
  kind: VagrantKind,
  lab: LabId,
  machine: string,
  { paused }: { readonly paused: boolean },
): Promise<boolean> =>
  (await hypervisors[kind].machines(lab)).some(
    (found) => found.name === machine && found.running && (found.paused ?? false) === paused,
  )

/** Removes a machine with its disks and Vagrant's records of it; its keys stay. */
const remove = async (kind: VagrantKind, lab: LabId, machine: string): Promise<void> => {
  await hypervisors[kind].remove(lab, machine)
  await rm(join(dotVagrant(lab), 'machines', machine), { recursive: true, force: true })
  await rm(consoleOf(lab, machine), { force: true })
}

// The provider.

/** Milliseconds: a machine that takes longer to answer is off. */
const dialDeadline = 10_000

const dial: Provider['dial'] = (_lab, host, port) =>
  new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true })
    socket.setTimeout(dialDeadline)
    const fail = (error: Error): void => {
      socket.destroy()
      reject(error)
    }
    socket
      .once('timeout', () => {
        fail(new Error(`connect ETIMEDOUT ${host}:${String(port)}`))
      })
      .once('error', fail)
      .once('connect', () => {
        socket.setTimeout(0)
        socket.removeListener('error', fail)
        resolve(socket)
      })
  })

const states = async (kind: VagrantKind, lab: Lab): Promise<readonly MachineState[]> => {
  const found = await hypervisors[kind].machines(lab)
  const state = async (name: string, spec: MachineSpec | undefined): Promise<MachineState> => {
    const machine = found.find((each) => each.name === name)
    if (!machine) return { name, status: 'absent', detail: 'never made' }
    if (!machine.running) {
      const said = await lastLine(consoleOf(lab, name))
      return {
        name,
        status: 'stopped',
        detail: said === '' ? machine.detail : `${machine.detail}; console: ${said}`,
      }
    }
    const differs = (await isMade(lab, kind, machine))
      ? machine.paused
        ? 'it is paused'
        : spec && differenceOf(machine, spec)
      : 'Vagrant did not finish making it'
    return {
      name,
      status: 'running',
      detail: machine.detail,
      ...(differs === undefined ? {} : { differs }),
      ...(machine.paused ? { paused: true } : {}),
    }
  }
  const extra = found.filter(({ name }) => !lab.machines.some((machine) => machine.name === name))
  return Promise.all([
    ...lab.machines.map((spec) => state(spec.name, spec)),
    ...extra.map(({ name }) => state(name, undefined)),
  ])
}

/**
 * Machines of the same name that this lab did not create: of a lab whose folder is gone, or of another user. A
 * hypervisor that does not answer is a problem like any other.
 */
const clashes = async (kind: VagrantKind, lab: Lab): Promise<readonly Problem[]> => {
  const strangers: string[] = []
  let found: readonly Found[]
  try {
    found = await hypervisors[kind].machines(lab)
  } catch (error) {
    if (error instanceof LabError) return [{ problem: error.message, hint: error.hint ?? 'lab doctor' }]
    throw error
  }
  for (const { name, id } of found)
    if ((await recordedId(lab, kind, name)) !== id) strangers.push(`${prefixOf(lab)}${name}`)
  return strangers.length === 0
    ? []
    : [
        {
          problem: `${kind} already has ${strangers.join(', ')}, from an earlier ${lab.name} or another user's`,
          hint: `lab down ${lab.name}   # removes them`,
        },
      ]
}

const leftIn = async (kind: VagrantKind, lab: LabId): Promise<readonly Leftover[]> => {
  try {
    return await hypervisors[kind].leftovers(lab)
  } catch (error) {
    if (!(error instanceof LabError) || (await hasRecords(lab, kind))) throw error
    throw new LabError('not-asked', error.message, { hint: error.hint, cause: error })
  }
}

/** Vagrant's own list of this user's machines forgets them only when Vagrant itself removes them. */
const forget = async (lab: LabId): Promise<void> => {
  const folder = folderOf(lab)
  const machines = await readdir(join(dotVagrant(lab), 'machines')).catch(() => [])
  if (machines.length === 0 || !existsSync(join(folder, 'Vagrantfile'))) return
  // Whatever it leaves or reports, the following code removes.
  await vagrant(folder, ['destroy', '--force'], { log: logOf(lab), timeout: 300 }).catch(() => undefined)
}

/** The factor for an emulated processor: 20 were measured. */
const emulation = 20

/** Decided as in the Vagrantfile. */
const isEmulated = (root = '/'): boolean =>
  process.env['LAB_EMULATE'] !== undefined || !existsSync(join(root, 'dev/kvm'))

const stock = async (kind: VagrantKind): Promise<Pick<Equipment, 'equipped' | 'equip'>> =>
  (await import('./stock-box.js')).stockEquipment(
    dial,
    kind === 'libvirt' && isEmulated() ? emulation : undefined,
  )

/** @param host the properties of this host that matter; replaced in tests */
export const vagrantProvider = (kind: VagrantKind, host?: VagrantHost): Provider => {
  const hypervisor = hypervisors[kind]
  return {
    name: kind,
    ...(kind === 'libvirt' && isEmulated(host?.root) ? { slowdown: emulation } : {}),
    probe: async (signal) => (await import('./probe.js')).probe(kind, signal, host),
    preflight: async (lab) => {
      const { preflight } = await import('./probe.js')
      return [...(await preflight(kind, lab, host)), ...(await clashes(kind, lab))]
    },
    prepare: async (lab, preparation) => (await import('./make.js')).prepare(kind, lab, preparation),
    states: (lab) => states(kind, lab),
    dial,
    destroy: async (lab) => {
      await forget(lab)
      await hypervisor.destroy(lab)
      await removeState(pathsOf(lab))
    },
    leftovers: async (lab): Promise<readonly Leftover[]> => [
      ...(await leftIn(kind, lab)),
      ...(existsSync(folderOf(lab)) ? [{ kind: 'file', what: folderOf(lab) } as const] : []),
    ],
    machines: {
      start: async (lab, machine, files) => {
        const found = (await hypervisor.machines(lab)).find(({ name }) => name === machine.name)
        const made = found !== undefined && (await isMade(lab, kind, found))
        if (made && found.running) return
        if (made) return hypervisor.start(lab, machine)
        // A partly created machine has no data yet, and the box it was made from may have been the problem.
        if (found) await remove(kind, lab, machine.name)
        const { makeMachine } = await import('./make.js')
        await makeMachine(kind, lab, machine, files)
      },
      remove: async (lab, machine) => {
        await remove(kind, lab, machine)
        await rm(pathsOf(lab).machine(machine), { recursive: true, force: true })
      },
    },
    power: { cut: (lab, machine) => hypervisor.cut(lab, machine) },
    // A machine that is off, or is paused or running already, is left as it is.
    pause: {
      begin: async (lab, machine) => {
        if (await runs(kind, lab, machine, { paused: false })) await hypervisor.pause(lab, machine)
      },
      end: async (lab, machine) => {
        if (await runs(kind, lab, machine, { paused: true })) await hypervisor.resume(lab, machine)
      },
    },
    network: {
      create: async (lab) => {
        const { writeVagrantfile } = await import('./make.js')
        await writeVagrantfile(kind, lab)
        await hypervisor.createNetwork(lab)
      },
      release: (lab) => hypervisor.releaseNetwork(lab),
      observe: (lab) => hypervisor.network(lab),
    },
    disks: {
      // The Vagrantfile sets these as the serial numbers of the disks.
      lunDevice: (index) =>
        `/dev/disk/by-id/${kind === 'libvirt' ? 'virtio-' : 'ata-VBOX_HARDDISK_'}lab${String(index)}`,
    },
    images: { archive: async (reference) => (await import('../../parts/nodes.js')).imageArchive(reference) },
    console: { log: consoleOf },
    // Loaded on demand, since most labs are made of lab's own box.
    equipment: {
      needed: (lab) => lab.box !== undefined,
      equipped: async (...asked) => (await stock(kind)).equipped(...asked),
      equip: async (...asked) => (await stock(kind)).equip(...asked),
    },
  }
}

export const makeProvider = (name: ProviderName): Provider => vagrantProvider(name as VagrantKind)
