/** How machines are created: the box, the Vagrantfile, and Vagrant, which creates them and gives lab access. */
import { type LabId, wordOf } from '../../identity.js'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, LabError } from '../../error.js'
import type { Lab, MachineSpec } from '../../lab/lab.js'
import { tarOf } from '../../machine/files.js'
import type { MachineFile } from '../../machine/machine-file.js'
import { labKeys, machineKeys } from '../../machine/keys.js'
import { needHostPackages } from '../../parts/host.js'
import { boxName, boxOf, builtKubectl, prepareBox, prepareImages, prepareKubectl } from '../../parts/parts.js'
import { imageArchive } from '../../parts/nodes.js'
import { imagesOf } from '../../lab/images.js'
import { render } from '../../render.js'
import { writePrivate } from '../../state.js'
import type { Preparation } from '../../parts/preparation.js'
import {
  dotVagrant,
  folderOf,
  type Hypervisor,
  isMade,
  logOf,
  subnetOf,
  type VagrantKind,
} from './hypervisor.js'
import { libvirt } from './libvirt.js'
import { ask, explain, vagrant } from './tools.js'
import { renderVagrantfile } from './vagrantfile.js'
import { prepareEquipment } from '../../provider/hosts/prepare.js'
import { stockEntryScript } from './stock-box.js'
import { virtualbox } from './virtualbox.js'

const hypervisors: Readonly<Record<VagrantKind, Hypervisor>> = { libvirt, virtualbox }

const entryOf = (lab: LabId, machine: string): string => join(dotVagrant(lab), 'lab', `${machine}.sh`)

/** The content of /etc/lab/network for a machine, whose second interface is in the lab's network. */
const networkFile = (lab: Lab, machine: MachineSpec): string =>
  `INTERFACE=eth1\nADDRESS=${machine.address}/${String(subnetOf(lab.network.subnet).prefix)}\n`

/** The script that Vagrant runs on a new machine: it installs the machine's files, including its keys. */
const entryScript = async (
  lab: Lab,
  machine: MachineSpec,
  files: readonly MachineFile[],
): Promise<string> => {
  const keys = await labKeys(lab)
  const own = await machineKeys(lab, machine.name)
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
 * Steps ask for one machine each, at the same time. A single Vagrant can create several side by side and shares the
 * common work; two would get in each other's way.
 */
class Workshop {
  readonly #kind: VagrantKind
  #orders: Order[] = []
  #working = false

  constructor(kind: VagrantKind) {
    this.#kind = kind
  }

  async make(lab: Lab, machine: string): Promise<void> {
    const made = new Promise<void>((done, failed) => {
      this.#orders.push({ lab, machine, done, failed })
    })
    if (!this.#working)
      this.#workOff().catch((error: unknown) => {
        for (const order of this.#orders.splice(0)) order.failed(error)
      })
    await made
  }

  async #workOff(): Promise<void> {
    this.#working = true
    // Waits until nobody has asked for another machine for a second.
    for (let seen = 0; seen !== this.#orders.length;) {
      seen = this.#orders.length
      await delay(1000)
    }
    for (let first = this.#orders[0]; first; first = this.#orders[0]) {
      const word = wordOf(first.lab)
      const batch = this.#orders
        .filter(({ lab }) => wordOf(lab) === word)
        .slice(0, hypervisors[this.#kind].together)
      this.#orders = this.#orders.filter((order) => !batch.includes(order))
      await this.#makeAll(first.lab, batch)
    }
    this.#working = false
  }

  async #makeAll(lab: Lab, batch: readonly Order[]): Promise<void> {
    try {
      const { ok, all } = await vagrant(
        folderOf(lab),
        // A machine that failed stays as it is, for inspection and for the next `up`.
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

/** Vagrant's output about one machine and, at the end, about all: each line starts with a machine's name. */
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

/** Asks only the file system, since `vagrant box list` takes a second. */
const isAdded = async (kind: VagrantKind, version: string): Promise<boolean> => {
  const folder = join(vagrantHome(), 'boxes', boxName.replaceAll('/', '-VAGRANTSLASH-'), version)
  // Since Vagrant 2.4, a folder for the architecture is between the two.
  for (const entry of await readdir(folder).catch(() => []))
    if (entry === kind || existsSync(join(folder, entry, kind))) return true
  return false
}

/** Whether machines are made of lab's own box. LAB_BOX names another one with the same content, which the user has. */
const ownBox = (lab: Lab): boolean => lab.box === undefined && (process.env['LAB_BOX'] ?? '') === ''

/** The host's kubectl: the one that was built, or any other. */
const hasKubectl = async (): Promise<boolean> =>
  builtKubectl() !== undefined || (await ask('kubectl', ['version', '--client'])).ok

/**
 * @throws LabError `no-box`, `no-kubectl` or `no-image` with the command to type, if the user does not agree to build
 * it
 */
const agreeToBuild = async (
  kind: VagrantKind,
  lab: Lab,
  { agree }: Preparation,
  lacks: { readonly box: boolean; readonly kubectl: boolean; readonly images: readonly string[] },
): Promise<void> => {
  if (!agree || (!lacks.box && !lacks.kubectl && lacks.images.length === 0)) return
  const what = lacks.box
    ? `Vagrant has no box ${boxName} ${boxOf(kind).version} for ${kind}`
    : lacks.kubectl
      ? 'this host has no kubectl'
      : `these images are not built: ${lacks.images.join(', ')}`
  const answer = await agree(
    `${what}. Build it now, from Debian packages and Go modules? This happens once: 3 min if lab's other parts are there, otherwise 15 min and 9 GiB.`,
  )
  if (answer === 'yes') return
  throw new LabError(
    lacks.box ? 'no-box' : lacks.kubectl ? 'no-kubectl' : 'no-image',
    `${lab.name}: ${what}${answer === 'nobody' ? ', and there is no terminal to ask whether to build it' : ''}`,
    {
      hint: `${lacks.box ? `lab box build --provider ${kind}, then try again; or in one step: ` : ''}lab up ${lab.name} --provider ${kind} --yes`,
      exitCode: exitCodes.host,
    },
  )
}

export const prepare = async (kind: VagrantKind, lab: Lab, preparation: Preparation): Promise<void> => {
  if (lab.box !== undefined) {
    await prepareEquipment(lab, preparation)
    return
  }
  const lacksKubectl = lab.kubernetes !== undefined && !(await hasKubectl())
  const lacksBox = ownBox(lab) && !(await isAdded(kind, boxOf(kind).version))
  // The box contains the images of every lab; a step loads the others.
  const images = imagesOf(lab).filter((reference) => imageArchive(reference) === undefined)
  if (!lacksKubectl && !lacksBox && images.length === 0) return
  await agreeToBuild(kind, lab, preparation, {
    box: lacksBox && !boxOf(kind).built,
    kubectl: lacksKubectl,
    images,
  })
  if (lacksKubectl || !boxOf(kind).built || images.length > 0) await needHostPackages(preparation)
  if (lacksKubectl) await prepareKubectl(preparation)
  if (images.length > 0) await prepareImages(images, preparation)
  if (!lacksBox) return
  const { version, built } = boxOf(kind)
  if (!built) preparation.notice(`Vagrant has no box ${boxName} ${version} for ${kind}: building it, once`)
  await prepareBox(kind, preparation)
  preparation.notice(`Adding the box ${boxName} ${version} to Vagrant`)
  await addBox(kind)
}

/**
 * Adds the box that was built to Vagrant.
 * @throws LabError in Vagrant's words
 */
export const addBox = async (kind: VagrantKind): Promise<void> => {
  const { metadata } = boxOf(kind)
  const said = await ask('vagrant', ['box', 'add', '--force', '--provider', kind, metadata], {
    timeout: 900,
    cwd: join(metadata, '..'),
  })
  if (!said.ok) throw explain('vagrant', said.all, { lab: 'box' })
}

/** Makes the lab's folder a Vagrant project. */
export const writeVagrantfile = async (kind: VagrantKind, lab: Lab): Promise<void> => {
  await mkdir(dotVagrant(lab), { recursive: true, mode: 0o700 })
  const version = ownBox(lab) ? boxOf(kind).version : undefined
  await writePrivate(join(folderOf(lab), 'Vagrantfile'), renderVagrantfile(lab, kind, version))
}

const workshops: Readonly<Record<VagrantKind, Workshop>> = {
  libvirt: new Workshop('libvirt'),
  virtualbox: new Workshop('virtualbox'),
}

/**
 * Creates a machine, boots it, and installs its files.
 * @throws LabError with Vagrant's words
 */
export const makeMachine = async (
  kind: VagrantKind,
  lab: Lab,
  machine: MachineSpec,
  files: readonly MachineFile[],
): Promise<void> => {
  await writeVagrantfile(kind, lab)
  await writePrivate(
    entryOf(lab, machine.name),
    lab.box === undefined ? await entryScript(lab, machine, files) : await stockEntryScript(lab, machine),
  )
  await workshops[kind].make(lab, machine.name)
  // It contains keys, and is no longer needed.
  await rm(entryOf(lab, machine.name), { force: true })
}
