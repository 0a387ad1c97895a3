/**
 * VirtualBox and libvirt through Vagrant. Vagrant makes a machine, from the Vagrantfile and the box, and lets lab in;
 * from then on the hypervisor's own tools are asked, and everything else goes over SSH.
 */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Lab, type MachineSpec, machinesWith } from '../../lab/lab.js'
import { type MachineFile, tarOf } from '../../machine/files.js'
import { labKeys, machineKeys } from '../../machine/keys.js'
import { sshTransport } from '../../machine/ssh.js'
import { needHostPackages } from '../../parts/host.js'
import { boxName, boxOf, builtKubectl, prepareBox, prepareKubectl } from '../../parts/parts.js'
import { render } from '../../render.js'
import { pathsOf, removeState, writePrivate } from '../../state.js'
import type { Leftover, MachineState, Preparation, Provider } from '../provider.js'
import { type Found, type Hypervisor, prefixOf } from './hypervisor.js'
import { libvirt } from './libvirt.js'
import { preflight, probe, thisHost, type VagrantHost } from './probe.js'
import { ask, explain, vagrant } from './tools.js'
import { prefixLengthOf, renderVagrantfile, type VagrantKind } from './vagrantfile.js'
import { virtualbox } from './virtualbox.js'

type Named = Pick<Lab, 'name'>

const hypervisors: Readonly<Record<VagrantKind, Hypervisor>> = { libvirt, virtualbox }

// The lab's folder is Vagrant's project folder.
const folderOf = (lab: Named): string => pathsOf(lab.name).root
const dotVagrant = (lab: Named): string => join(folderOf(lab), '.vagrant')
const logOf = (lab: Named): string => join(folderOf(lab), 'vagrant.log')
const entryOf = (lab: Named, machine: string): string => join(dotVagrant(lab), 'lab', `${machine}.sh`)
const consoleOf = (lab: Named, machine: string): string => join(dotVagrant(lab), `${machine}.console.log`)

/** What Vagrant remembers of a machine. */
const memoryOf = (lab: Named, kind: VagrantKind, machine: string): string =>
  join(dotVagrant(lab), 'machines', machine, kind)

/** Whether Vagrant made this very machine, up to its end: the script that lets lab in has run. */
const isMade = async (lab: Named, kind: VagrantKind, found: Found): Promise<boolean> => {
  const folder = memoryOf(lab, kind, found.name)
  const id = await readFile(join(folder, 'id'), 'utf8').catch(() => '')
  return id.trim() === found.id && existsSync(join(folder, 'action_provision'))
}

const lastLine = async (path: string): Promise<string> => {
  const lines = (await readFile(path, 'utf8').catch(() => '')).trimEnd().split('\n')
  return (lines.findLast((line) => line.includes('Kernel panic')) ?? lines.at(-1) ?? '').trim()
}

const mebibytes = (bytes: number): string => `${String(Math.ceil(bytes / 1024 ** 2))} MiB`

/** What differs between how a machine is and how it is wanted, in words; undefined: nothing. */
const differenceOf = (found: Found, wanted: MachineSpec): string | undefined => {
  const differs: string[] = []
  if (found.memory !== undefined && mebibytes(found.memory) !== mebibytes(wanted.memory))
    differs.push(`memory ${mebibytes(found.memory)}, wanted ${mebibytes(wanted.memory)}`)
  if (found.cpus !== undefined && found.cpus !== Math.ceil(wanted.cpus))
    differs.push(`${String(found.cpus)} processors, wanted ${String(Math.ceil(wanted.cpus))}`)
  return differs.length > 0 ? differs.join('; ') : undefined
}

/** What of /etc/lab/network the machine needs: its card of the lab's network is the second one. */
const networkFile = (lab: Lab, machine: MachineSpec): string =>
  `INTERFACE=eth1\nADDRESS=${machine.address}/${String(prefixLengthOf(lab))}\n`

/** The script that Vagrant runs on a new machine: it lays down the machine's files, keys first among them. */
const entryScript = async (
  lab: Lab,
  machine: MachineSpec,
  files: readonly MachineFile[],
): Promise<string> => {
  const keys = await labKeys(lab.name)
  const own = await machineKeys(lab.name, machine.name)
  const archive = await tarOf([
    ...files,
    { path: '/etc/lab/network', content: networkFile(lab, machine) },
    { path: '/root/.ssh/authorized_keys', content: `${keys.publicKey}\n`, mode: 0o600 },
    { path: '/etc/ssh/ssh_host_ed25519_key', content: own.privateKey, mode: 0o600 },
    { path: '/etc/ssh/ssh_host_ed25519_key.pub', content: `${own.publicKey}\n` },
  ])
  return render('machine/vagrant-entry.sh', {
    archive: archive.toString('base64').replaceAll(/.{76}/g, '$&\n').trimEnd(),
  })
}

// Making machines

interface Order {
  readonly lab: Lab
  readonly machine: string
  readonly done: () => void
  readonly failed: (error: unknown) => void
}

/**
 * Steps ask for one machine each, at the same time. One Vagrant can make several of them side by side, and shares
 * what must not be done twice; two Vagrants would be in each other's way.
 */
class Workshop {
  readonly #kind: VagrantKind
  #orders: Order[] = []
  #work: Promise<void> | undefined

  constructor(kind: VagrantKind) {
    this.#kind = kind
  }

  async make(lab: Lab, machine: string): Promise<void> {
    const made = new Promise<void>((done, failed) => this.#orders.push({ lab, machine, done, failed }))
    this.#work ??= this.#workOff().finally(() => (this.#work = undefined))
    await Promise.all([made, this.#work])
  }

  async #workOff(): Promise<void> {
    // Until a second has passed in which nobody else asked.
    for (let seen = -1; seen !== this.#orders.length; await delay(1000)) seen = this.#orders.length
    for (let first = this.#orders[0]; first; first = this.#orders[0]) {
      const { name } = first.lab
      const batch = this.#orders
        .filter(({ lab }) => lab.name === name)
        .slice(0, hypervisors[this.#kind].together)
      this.#orders = this.#orders.filter((order) => !batch.includes(order))
      await this.#makeAll(first.lab, batch)
    }
  }

  async #makeAll(lab: Lab, batch: readonly Order[]): Promise<void> {
    try {
      const { ok, all } = await vagrant(
        folderOf(lab),
        // A machine that failed stays as it is, for people to look at and for the next `up` to go on with.
        ['up', ...batch.map(({ machine }) => machine), '--provider', this.#kind, '--no-destroy-on-error'],
        { log: logOf(lab) },
      )
      const found = await hypervisors[this.#kind].machines(lab)
      for (const { machine, done, failed } of batch) {
        const made = found.find(({ name }) => name === machine)
        if (ok || (made?.running && (await isMade(lab, this.#kind, made)))) done()
        else failed(explain('vagrant', wordsFor(all, machine), { lab: lab.name, machine, log: logOf(lab) }))
      }
    } catch (error) {
      for (const { failed } of batch) failed(error)
    }
  }
}

/** What Vagrant said of one machine, and in the end of all: several are made at once, each line has a name before it. */
const wordsFor = (said: string, machine: string): string =>
  said
    .split('\n')
    .filter((line) => {
      const name = /^(?:==>| {4}) ([a-z0-9-]+): /.exec(line)?.[1]
      return name === undefined || name === machine
    })
    .join('\n')

// The box

/** Where Vagrant keeps boxes. */
const vagrantHome = (): string => process.env['VAGRANT_HOME'] ?? join(homedir(), '.vagrant.d')

/** Asks only the file system: `vagrant box list` takes a second. */
const isAdded = async (kind: VagrantKind, version: string): Promise<boolean> => {
  const folder = join(vagrantHome(), 'boxes', boxName.replaceAll('/', '-VAGRANTSLASH-'), version)
  // Since Vagrant 2.4 there is a folder of the architecture between the two.
  for (const entry of await readdir(folder).catch(() => []))
    if (entry === kind || existsSync(join(folder, entry, kind))) return true
  return false
}

/** LAB_BOX names another box, that the user has to have. */
const ownBox = (): boolean => (process.env['LAB_BOX'] ?? '') === ''

/** The host's kubectl: the one that was built, or any that is there. */
const hasKubectl = async (): Promise<boolean> =>
  builtKubectl() !== undefined || (await ask('kubectl', ['version', '--client'])).ok

const prepare = async (kind: VagrantKind, lab: Lab, preparation: Preparation): Promise<void> => {
  const lacksKubectl = lab.kubernetes !== undefined && !(await hasKubectl())
  const lacksBox = ownBox() && !(await isAdded(kind, boxOf(kind).version))
  if (!lacksKubectl && !lacksBox) return
  if (lacksKubectl || !boxOf(kind).built) await needHostPackages(preparation)
  if (lacksKubectl) await prepareKubectl(preparation)
  if (!lacksBox) return
  const { version, built } = boxOf(kind)
  if (!built)
    preparation.notice(
      `Vagrant has no box ${boxName} ${version} for ${kind}: building it, once. Another box: LAB_BOX=NAME lab up …`,
    )
  await prepareBox(kind, preparation)
  preparation.notice(`Adding the box ${boxName} ${version} to Vagrant`)
  await addBox(kind)
}

/** `vagrant box add` of the box that was built. @throws LabError in Vagrant's words. */
export const addBox = async (kind: VagrantKind): Promise<void> => {
  const { metadata } = boxOf(kind)
  const said = await ask('vagrant', ['box', 'add', '--force', '--provider', kind, metadata], {
    timeout: 900,
    cwd: join(metadata, '..'),
  })
  if (!said.ok) throw explain('vagrant', said.all, { lab: 'box' })
}

// The provider

/** Milliseconds: who does not answer here is off, not far away. */
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
      ? spec && differenceOf(machine, spec)
      : 'Vagrant did not make it to its end'
    return { name, status: 'running', detail: machine.detail, ...(differs === undefined ? {} : { differs }) }
  }
  const extra = found.filter(({ name }) => !lab.machines.some((machine) => machine.name === name))
  return Promise.all([
    ...lab.machines.map((spec) => state(spec.name, spec)),
    ...extra.map(({ name }) => state(name, undefined)),
  ])
}

/** The machine with its disks, and what Vagrant remembers of it; its keys stay. */
const remove = async (kind: VagrantKind, lab: Named, machine: string): Promise<void> => {
  await hypervisors[kind].remove(lab, machine)
  await rm(join(dotVagrant(lab), 'machines', machine), { recursive: true, force: true })
  await rm(consoleOf(lab, machine), { force: true })
}

/** Machines of that name that this lab did not make: of a lab whose folder is gone, or of another user. */
const clashes = async (
  kind: VagrantKind,
  lab: Lab,
): Promise<readonly { problem: string; hint: string }[]> => {
  const strangers: string[] = []
  for (const { name, id } of await hypervisors[kind].machines(lab)) {
    const known = await readFile(join(memoryOf(lab, kind, name), 'id'), 'utf8').catch(() => '')
    if (known.trim() !== id) strangers.push(`${prefixOf(lab)}${name}`)
  }
  return strangers.length === 0
    ? []
    : [
        {
          problem: `${kind} has ${strangers.join(', ')} already, from an earlier ${lab.name} or one of another user`,
          hint: `lab down ${lab.name}   # removes them`,
        },
      ]
}

const writeVagrantfile = async (kind: VagrantKind, lab: Lab): Promise<void> => {
  const version = ownBox() ? boxOf(kind).version : undefined
  await writePrivate(join(folderOf(lab), 'Vagrantfile'), renderVagrantfile(lab, kind, version))
}

/** Vagrant's own list of all machines of this user forgets them only when Vagrant itself removes them. */
const forget = async (lab: Named): Promise<void> => {
  const folder = folderOf(lab)
  const machines = await readdir(join(dotVagrant(lab), 'machines')).catch(() => [])
  if (machines.length === 0 || !existsSync(join(folder, 'Vagrantfile'))) return
  // Whatever it leaves, or says, what follows removes.
  await vagrant(folder, ['destroy', '--force'], { log: logOf(lab), timeout: 300 }).catch(() => undefined)
}

/** @param host what of this host decides whether it can be used; tests give another one */
export const vagrantProvider = (kind: VagrantKind, host: VagrantHost = thisHost): Provider => {
  const hypervisor = hypervisors[kind]
  const workshop = new Workshop(kind)
  return {
    name: kind,
    probe: (signal) => probe(kind, host, signal),
    preflight: async (lab) => [...(await preflight(kind, host, lab)), ...(await clashes(kind, lab))],
    prepare: (lab, preparation) => prepare(kind, lab, preparation),
    createNetwork: async (lab) => {
      await mkdir(join(dotVagrant(lab), 'lab'), { recursive: true, mode: 0o700 })
      await writeVagrantfile(kind, lab)
      await hypervisor.createNetwork(lab)
    },
    network: (lab) => hypervisor.network(lab),
    // The host has an address of its own in the lab's network.
    apiEndpoint: (lab) =>
      Promise.resolve(`https://${machinesWith(lab, 'control-plane')[0]?.address ?? '127.0.0.1'}:6443`),
    releaseNetwork: (lab) => hypervisor.releaseNetwork(lab),
    states: (lab) => states(kind, lab),
    start: async (lab, machine, files) => {
      const found = (await hypervisor.machines(lab)).find(({ name }) => name === machine.name)
      const made = found !== undefined && (await isMade(lab, kind, found))
      if (made && found.running) return
      if (made) return hypervisor.start(lab, machine)
      // Half made: there is nothing on it yet, and what it was made with may have been what was wrong.
      if (found) await remove(kind, lab, machine.name)
      await writeVagrantfile(kind, lab)
      await writePrivate(entryOf(lab, machine.name), await entryScript(lab, machine, files))
      await workshop.make(lab, machine.name)
      // It has keys in it, and is of no more use.
      await rm(entryOf(lab, machine.name), { force: true })
    },
    cut: (lab, machine) => hypervisor.cut(lab, machine),
    pause: (lab, machine) => hypervisor.pause(lab, machine),
    resume: (lab, machine) => hypervisor.resume(lab, machine),
    remove: async (lab, machine) => {
      await remove(kind, lab, machine)
      await rm(pathsOf(lab.name).machine(machine), { recursive: true, force: true })
    },
    transport: async (lab, machine) => {
      const { privateKey } = await labKeys(lab.name)
      const { publicKey } = await machineKeys(lab.name, machine.name)
      return sshTransport({
        address: `${machine.name} (${machine.address})`,
        user: 'root',
        privateKey,
        hostKey: publicKey.split(' ')[1] ?? '',
        dial: () => dial(lab, machine.address, 22),
      })
    },
    dial,
    proxyCommand: () => undefined,
    // Set in the Vagrantfile as the serial numbers of the disks.
    lunDevice: (index) =>
      `/dev/disk/by-id/${kind === 'libvirt' ? 'virtio-' : 'ata-VBOX_HARDDISK_'}lab${String(index)}`,
    // Machines stand on Vagrant's copy of the box, not on ours.
    partsInUse: () => Promise.resolve([]),
    consoleLog: consoleOf,
    destroy: async (lab) => {
      await forget(lab)
      await hypervisor.destroy(lab)
      await removeState(pathsOf(lab.name))
    },
    leftovers: async (lab): Promise<readonly Leftover[]> => [
      ...(await hypervisor.leftovers(lab)),
      ...(existsSync(folderOf(lab)) ? [{ kind: 'file', what: folderOf(lab) } as const] : []),
    ],
  }
}
