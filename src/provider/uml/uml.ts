import { type LabId, turnOf } from '../../identity.js'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readlinkSync, readdirSync } from 'node:fs'
import { chmod, lchown, mkdir, open, readdir, readFile, rm, stat, truncate } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { LabError } from '../../error.js'
import { addressText, hostNumber, parseAddress, parseSubnet, type Subnet } from '../../lab/address.js'
import { imagesOf } from '../../lab/images.js'
import { type Lab, type MachineSpec, machinesWith } from '../../lab/lab.js'
import { disksProblem } from '../../lab/iscsi-rules.js'
import { sizeText } from '../../lab/units.js'
import { serialOf, tarOf } from '../../machine/files.js'
import { quote } from '../../machine/sh.js'
import { needHostPackages } from '../../parts/host.js'
import { imageArchive, preparedParts, prepareParts } from '../../parts/parts.js'
import { labKeys, machineKeys } from '../../machine/keys.js'
import { madeLabs, pathsOf, removeState, writePrivate } from '../../state.js'
import type { Leftover, Machines, MachineState, Provider } from '../provider.js'
import { type Bind, machineUser } from './confine.js'
import { endOf } from './console.js'
import { makeCow } from './cow.js'
import { preflight, probe } from './preflight.js'
import { lives, processAt, processesOf } from './processes.js'
import { snapshots } from './snapshots.js'
import type { RunningMachine, StartRequest } from './supervisor.js'
import { callSupervisor, connectThrough, SupervisorRefusal } from './tunnel.js'

const supervisorScript = fileURLToPath(new URL('./supervisor.js', import.meta.url))
const dialScript = fileURLToPath(new URL('./dial.js', import.meta.url))

const socketOf = (lab: LabId): string => join(pathsOf(lab).root, 'supervisor.sock')
const supervisorLog = (lab: LabId): string => join(pathsOf(lab).root, 'supervisor.log')

/** Where the host's 127.0.0.1 leads into the lab: the API server's port there. */
const portFile = (lab: LabId): string => join(pathsOf(lab).root, 'api-port')

/** Seconds for the namespaces and the bridge: 0.2 s were measured. */
const supervisorDeadline = 15

const isRoot = (): boolean => process.getuid?.() === 0

/** Namespaces of our own: network, processes, mounts; and users, where we are not root. */
const unshareArgs = (): readonly string[] => [
  ...(isRoot() ? [] : ['--user', '--map-root-user']),
  '--net',
  '--pid',
  '--mount',
  '--fork',
  '--kill-child=SIGKILL',
  '--mount-proc',
]

/**
 * A machine's memory is a file that User-Mode Linux maps: on a tmpfs, or its pages would be written to disk,
 * and on one that allows execution, which a host's /dev/shm need not.
 */
const inNamespace = 'mount -t tmpfs -o mode=1777,size=100% lab /dev/shm && exec "$@"'

const machineFolder = (lab: LabId, machine: string): string => pathsOf(lab).machine(machine)

interface Lun {
  /** The raw file behind it, named by the serial number: a LUN keeps its data when others come or go. */
  readonly path: string
  /** Bytes. */
  readonly size: number
  /** IQN of the target that serves it, and its number there. */
  readonly target: string
  readonly lun: number
}

const lunsOf = (lab: Lab, machine: MachineSpec): readonly Lun[] =>
  lab.targets
    .filter((target) => target.machine === machine.name)
    .flatMap((target) =>
      target.luns.map(({ lun, size }) => ({
        path: join(machineFolder(lab, machine.name), `lun-${serialOf(target, lun)}.raw`),
        size,
        target: target.iqn,
        lun,
      })),
    )

/** `ubda` is the root disk, `ubdb` the seed; LUNs follow. */
const lunDevice = (index: number): string => `/dev/ubd${String.fromCharCode('c'.charCodeAt(0) + index)}`

/** The base disk and kernel a machine was made with: its copy-on-write disk is of no use with others. */
interface MachineBase {
  readonly kernel: string
  readonly baseDisk: string
}

const baseOf = (lab: LabId, machine: string): Promise<MachineBase | undefined> =>
  baseIn(machineFolder(lab, machine))

const baseIn = async (folder: string): Promise<MachineBase | undefined> => {
  const text = await readFile(join(folder, 'base.json'), 'utf8').catch(() => '')
  try {
    const { kernel, baseDisk } = JSON.parse(text) as Partial<MachineBase>
    return kernel === undefined || baseDisk === undefined ? undefined : { kernel, baseDisk }
  } catch {
    // Not there, or a power cut has emptied it: the machine counts as absent, and is made anew.
    return undefined
  }
}

/** Folders of the machines of a lab, as they are and as snapshots have them. */
const machineFolders = async (lab: LabId): Promise<readonly string[]> => {
  const names = (folder: string): Promise<readonly string[]> => readdir(folder).catch(() => [])
  const { snapshots: kept, snapshotDisks } = pathsOf(lab)
  const places = [machineFolder(lab, ''), ...(await names(kept)).map((name) => snapshotDisks(name))]
  return (
    await Promise.all(places.map(async (place) => (await names(place)).map((name) => join(place, name))))
  ).flat()
}

/** Of every lab there is: a copy-on-write disk is worthless without the base disk below it. */
const partsInUse = async (): Promise<readonly string[]> => {
  const used: string[] = []
  for (const lab of await madeLabs())
    for (const machine of await machineFolders(lab)) {
      const base = await baseIn(machine)
      if (base) used.push(base.kernel, base.baseDisk)
    }
  return used
}

/** @throws when the lab's subnet is none: the loader has checked it. */
const subnetOf = (lab: Lab): Subnet => {
  const subnet = parseSubnet(lab.network.subnet)
  if (!subnet) throw new Error(`${lab.network.subnet} is not a subnet`)
  return subnet
}

/** The bridge's address in the lab's network: the first one of the subnet. */
const gatewayOf = (lab: Lab): string => addressText(subnetOf(lab).base + 1)

/**
 * The same at every boot: neighbours remember it for half a minute, and would send to the machine's former
 * self. 02 marks an address that nobody else has given out.
 */
const macOf = (machine: MachineSpec): string =>
  ['02', '4c', ...machine.address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))].join(
    ':',
  )

const linkOf = (lab: Lab, machine: MachineSpec): StartRequest['link'] => {
  const host = String(hostNumber(subnetOf(lab), parseAddress(machine.address) ?? 0))
  return [`b${host}`, `v${host}`, macOf(machine)]
}

/** In the machine's root folder, which has nothing else of the host. */
const seen = {
  kernel: '/linux',
  base: '/base',
  root: '/root.cow',
  seed: '/seed',
  lun: (n: number) => `/lun-${String(n)}`,
}

const bindsOf = (lab: Lab, machine: MachineSpec, base: MachineBase): readonly Bind[] => {
  const folder = machineFolder(lab, machine.name)
  return [
    { from: base.kernel, to: seen.kernel },
    { from: base.baseDisk, to: seen.base },
    { from: join(folder, 'root.cow'), to: seen.root, writable: true },
    { from: join(folder, 'seed.tar'), to: seen.seed },
    ...lunsOf(lab, machine).map(({ path }, index) => ({ from: path, to: seen.lun(index), writable: true })),
  ]
}

/** What the supervisor adds is the network; and what it lists, the address there. */
const argvOf = (lab: Lab, machine: MachineSpec): readonly string[] => [
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
  // For who looks at the host's processes: the machine itself makes nothing of it.
  `labfolder=${encodeURI(machineFolder(lab, machine.name))}`,
]

/**
 * Who a machine runs as, where `lab` may choose: machines of other labs are other users, and so are those of this one.
 */
const userOf = (lab: LabId, machine: string): number | undefined =>
  machineUser(createHash('sha256').update(machineFolder(lab, machine)).digest().readUInt32BE(0))

/** `0-1,4`, as the kernel writes it. */
const cpuList = (text: string): readonly number[] =>
  text.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })

/**
 * Control planes, which have the most to do, get CPUs of their own where there are enough; the others share the
 * rest. Where a lab begins follows from its name and seat, so that labs do not crowd the same CPU.
 */
export const assignCpu = (lab: Lab, machine: MachineSpec, cpus: readonly number[]): number => {
  const busy = machinesWith(lab, 'control-plane')
  const others = lab.machines.filter((other) => !busy.includes(other))
  const own = busy.length < cpus.length ? busy.length : 0
  const place = busy.includes(machine)
    ? busy.indexOf(machine)
    : own + (others.indexOf(machine) % (cpus.length - own))
  return cpus[(place + turnOf(lab, lab.machines.length)) % cpus.length] ?? 0
}

const cpuOf = async (lab: Lab, machine: MachineSpec): Promise<number> => {
  const [, allowed = '0'] =
    /^Cpus_allowed_list:\s*(\S+)/m.exec(await readFile('/proc/self/status', 'utf8')) ?? []
  return assignCpu(lab, machine, cpuList(allowed))
}

/** What differs between how a machine runs and how it is wanted, in words; undefined: nothing. */
export const differenceOf = (runs: readonly string[], wanted: readonly string[]): string | undefined => {
  const gone = runs.filter((word) => !wanted.includes(word))
  const come = wanted.filter((word) => !runs.includes(word))
  if (gone.length === 0 && come.length === 0) return undefined
  return `runs with ${gone.join(' ') || 'less'}, wanted ${come.join(' ') || 'without it'}`
}

/** A LUN that the lab file made larger: the machine sees it when it boots again. */
const smallLun = async (lab: Lab, machine: MachineSpec): Promise<string | undefined> => {
  for (const [index, { path, size }] of lunsOf(lab, machine).entries()) {
    const has = (await stat(path).catch(() => undefined))?.size ?? 0
    if (has < size) return `disk ${String(index)} has ${String(has)} bytes, wanted ${String(size)}`
  }
  return undefined
}

const lastLine = async (path: string): Promise<string> => {
  const text = await endOf(path)
  const lines = text.trimEnd().split('\n')
  const panic = lines.findLast((line) => line.includes('Kernel panic'))
  return (panic ?? lines.at(-1) ?? '').trim()
}

const runningMachines = async (lab: LabId): Promise<readonly RunningMachine[] | undefined> => {
  try {
    return await callSupervisor<RunningMachine[]>(socketOf(lab), 'GET', '/machines')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined
    throw error
  }
}

/** Listens on the port of last time, so that a kubeconfig stays valid; on another where that one is taken. */
const listenOnLoopback = async (lab: Lab): Promise<Server> => {
  const kept = Number(await readFile(portFile(lab), 'utf8').catch(() => '0'))
  const listen = (port: number): Promise<Server> =>
    new Promise((resolve, reject) => {
      const server = createServer()
      server.once('error', reject)
      server.listen({ host: '127.0.0.1', port }, () => resolve(server))
    })
  const server = await listen(kept).catch(() => listen(0))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('a TCP server without a port')
  await writePrivate(portFile(lab), String(address.port))
  return server
}

const createNetwork = async (lab: Lab): Promise<void> => {
  if (await runningMachines(lab)) return
  const root = pathsOf(lab).root
  await mkdir(root, { recursive: true, mode: 0o700 })
  await rm(socketOf(lab), { force: true })
  const listener = await listenOnLoopback(lab)
  // Node's documented stdio takes a descriptor; a listening server keeps its own in its handle.
  const { fd } = (listener as unknown as { _handle: { fd: number } })._handle
  const log = await open(supervisorLog(lab), 'a', 0o600)
  // Not through execa: it would tie the process to this one, which it must outlive.
  const child = spawn(
    'unshare',
    [
      ...unshareArgs(),
      'sh',
      '-c',
      inNamespace,
      'lab',
      process.execPath,
      supervisorScript,
      socketOf(lab),
      `${gatewayOf(lab)}/${String(subnetOf(lab).prefix)}`,
      supervisorLog(lab),
    ],
    { stdio: ['ignore', log.fd, log.fd, fd], detached: true, cwd: '/' },
  )
  child.unref()
  const until = Date.now() + supervisorDeadline * 1000
  let ended = false as boolean
  child.once('error', () => (ended = true)).once('exit', () => (ended = true))
  try {
    while (!(await runningMachines(lab))) {
      if (ended || Date.now() > until)
        throw new LabError('namespace-failed', `the lab's network: ${await lastLine(supervisorLog(lab))}`, {
          hint: 'lab doctor',
          log: supervisorLog(lab),
        })
      await delay(20)
    }
  } finally {
    listener.close()
    await log.close()
  }
  const controlPlane = lab.machines.find((machine) => machine.role === 'control-plane')
  if (controlPlane)
    await callSupervisor(socketOf(lab), 'PUT', '/forward', { host: controlPlane.address, port: 6443 })
}

const states = async (lab: Lab): Promise<readonly MachineState[]> => {
  const running = (await runningMachines(lab)) ?? []
  const state = async (name: string, spec: MachineSpec | undefined): Promise<MachineState> => {
    const found = running.find((machine) => machine.name === name)
    const base = await baseOf(lab, name)
    if (!base) return { name, status: 'absent', detail: 'never made' }
    if (!found) return { name, status: 'stopped', detail: 'no process' }
    if (!found.running)
      return {
        name,
        status: 'stopped',
        detail: `${found.ended ?? 'ended'}; console: ${await lastLine(join(machineFolder(lab, name), 'console.log'))}`,
      }
    const differs =
      spec &&
      (differenceOf(found.argv, [...argvOf(lab, spec), `mac=${macOf(spec)}`]) ?? (await smallLun(lab, spec)))
    return {
      name,
      status: 'running',
      detail: `since ${new Date(found.started).toISOString()}`,
      ...(found.paused ? { paused: true, differs: differs ?? 'it is paused' } : {}),
      ...(differs === undefined ? {} : { differs }),
    }
  }
  const made = existsSync(machineFolder(lab, '')) ? readdirSync(machineFolder(lab, '')) : []
  const extra = made.filter((name) => !lab.machines.some((machine) => machine.name === name))
  return Promise.all([
    ...lab.machines.map((spec) => state(spec.name, spec)),
    ...extra.map((name) => state(name, undefined)),
  ])
}

/** Of a supervisor that an earlier `lab` has started, and that runs machines otherwise. */
const needNewSupervisor = async (lab: Lab): Promise<void> => {
  try {
    await callSupervisor(socketOf(lab), 'GET', '/version')
  } catch (error) {
    if (!(error instanceof SupervisorRefusal) || error.status !== 404) throw error
    throw new LabError(
      'earlier-version',
      `the network of ${lab.name} was made by an earlier version of lab, which starts machines otherwise`,
      { hint: `lab stop ${lab.name}, then lab up ${lab.name}` },
    )
  }
}

/** Whom the machine runs as may use its files; nobody else. Those of a lab of an earlier version are root's. */
const giveFiles = async (user: number | undefined, binds: readonly Bind[]): Promise<void> => {
  for (const { from, writable } of binds) {
    const own = writable === true || from.endsWith('/seed.tar')
    // Of links, the link: nothing else may be given away.
    if (own && user !== undefined) await lchown(from, user, user)
    if (!own && user !== undefined) {
      // Parts hold no secrets; who may look into the folder they are in stays as it is.
      const { mode } = await stat(from)
      const readable = mode | 0o444 | (mode & 0o100 ? 0o111 : 0)
      if (mode !== readable) await chmod(from, readable & 0o777)
    }
  }
}

const start: Machines['start'] = async (lab, machine, files) => {
  await needNewSupervisor(lab)
  const folder = machineFolder(lab, machine.name)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  let base = await baseOf(lab, machine.name)
  if (!base) {
    const parts = await preparedParts({ images: imagesOf(lab) })
    if ('missing' in parts)
      throw new LabError('not-prepared', `parts are missing: ${parts.missing.join(', ')}`, {
        hint: `lab prepare ${lab.name}`,
      })
    base = { kernel: parts.kernel, baseDisk: parts.baseDisk }
    // Of a machine that was half made, over a base disk that nobody remembers.
    await rm(join(folder, 'root.cow'), { force: true })
  } else if (!existsSync(base.baseDisk) || !existsSync(base.kernel)) {
    throw new LabError(
      'base-gone',
      `${machine.name}: ${base.baseDisk} is gone, and its disk is of no use without it`,
      {
        hint: `lab down ${lab.name}, then lab up ${lab.name}`,
      },
    )
  }
  const keys = await labKeys(lab)
  const own = await machineKeys(lab, machine.name)
  await writePrivate(
    join(folder, 'seed.tar'),
    await tarOf([
      ...files,
      { path: '/etc/lab/network', content: networkFile(lab, machine) },
      { path: '/root/.ssh/authorized_keys', content: `${keys.publicKey}\n`, mode: 0o600 },
      { path: '/etc/ssh/ssh_host_ed25519_key', content: own.privateKey, mode: 0o600 },
      { path: '/etc/ssh/ssh_host_ed25519_key.pub', content: `${own.publicKey}\n` },
    ]),
  )
  for (const { path, size } of lunsOf(lab, machine)) {
    const disk = await open(path, 'a', 0o600)
    const { size: has } = await disk.stat()
    await disk.close()
    // A LUN may grow; it never shrinks, there may be data at its end.
    if (has < size) await truncate(path, size)
  }
  if (!existsSync(join(folder, 'root.cow'))) await makeCow(join(folder, 'root.cow'), base.baseDisk, seen.base)
  const user = userOf(lab, machine.name)
  const binds = bindsOf(lab, machine, base)
  await giveFiles(user, binds)
  // Written last: a machine without it is absent, and is made anew.
  await writePrivate(join(folder, 'base.json'), JSON.stringify(base))
  const request: StartRequest = {
    argv: argvOf(lab, machine),
    cpu: await cpuOf(lab, machine),
    console: join(folder, 'console.log'),
    link: linkOf(lab, machine),
    binds,
    ...(user === undefined ? {} : { user }),
  }
  await callSupervisor(socketOf(lab), 'PUT', `/machines/${machine.name}`, request)
}

const networkFile = (lab: Lab, machine: MachineSpec): string =>
  [
    'INTERFACE=vec0',
    `ADDRESS=${machine.address}/${String(subnetOf(lab).prefix)}`,
    // Nothing is routed out of the lab; kubeadm and kube-proxy want a default route all the same.
    `GATEWAY=${gatewayOf(lab)}`,
    '',
  ].join('\n')

const leftovers: Provider['leftovers'] = (lab) => {
  const root = pathsOf(lab).root
  const processes = processesOf(socketOf(lab))
  const namespaces = new Set<string>()
  for (const { pid } of processes) {
    try {
      const namespace = readlinkSync(`/proc/${String(pid)}/ns/net`)
      if (namespace !== readlinkSync('/proc/self/ns/net')) namespaces.add(namespace)
    } catch {
      // It ended while we looked.
    }
  }
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`${root}/`) || line.includes(`${root} `))
  return Promise.resolve([
    ...processes.map(({ what }): Leftover => ({ kind: 'process', what })),
    ...[...namespaces].map((what): Leftover => ({ kind: 'namespace', what })),
    ...mounts.map((what): Leftover => ({ kind: 'mount', what })),
    ...(existsSync(root) ? [{ kind: 'file', what: root } as const] : []),
  ])
}

/** It answers before it ends, or is not there: what counts is whether it is gone, and the caller looks. */
const endSupervisor = (lab: LabId): Promise<unknown> =>
  callSupervisor(socketOf(lab), 'DELETE', '/').catch(() => undefined)

const destroy: Provider['destroy'] = async (lab) => {
  // Before its supervisor ends: those that are still ending then no longer show whose they are.
  const processes = processesOf(socketOf(lab))
  await endSupervisor(lab)
  const same = ({ pid, began }: { pid: number; began: string }): boolean =>
    lives(pid) && processAt(pid)?.began === began
  for (const until = Date.now() + 10_000; Date.now() < until;) {
    const left = [...processes.filter(same), ...processesOf(socketOf(lab))]
    if (left.length === 0) break
    for (const { pid } of left) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // Gone already is what is wanted; anything else shows as a leftover.
      }
    }
    await delay(50)
  }
  await removeState(pathsOf(lab))
}

/** One that does not run is left alone: whether it stands still, its state says. */
const setPaused = async (lab: Lab, machine: string, method: 'PUT' | 'DELETE'): Promise<void> => {
  if (!(await runningMachines(lab))) return
  try {
    await callSupervisor(socketOf(lab), method, `/paused/${machine}`)
  } catch (error) {
    if (!(error instanceof SupervisorRefusal) || error.status !== 409) throw error
  }
}

/** What is wrong with the LUNs of a lab before anything is made: too many for a machine, or made smaller. */
const lunProblems = async (lab: Lab): Promise<readonly { problem: string; hint: string }[]> => {
  const problems: { problem: string; hint: string }[] = []
  for (const machine of lab.machines) {
    const luns = lunsOf(lab, machine)
    const tooMany = disksProblem(machine.name, luns.length, 'uml')
    if (tooMany !== undefined)
      problems.push({ problem: tooMany, hint: `another machine with the role target in ${lab.file}` })
    for (const { path, size, target, lun } of luns) {
      const has = (await stat(path).catch(() => undefined))?.size ?? 0
      if (has > size)
        problems.push({
          problem: `LUN ${String(lun)} of ${target} has ${sizeText(has)}, and the lab file says ${sizeText(size)}: a disk that shrinks loses what is at its end`,
          hint: `write size: ${sizeText(has)} in ${lab.file}; or remove the lab with all its data: lab down ${lab.name}`,
        })
    }
  }
  return problems
}

/**
 * User-Mode Linux: every machine is a Linux kernel that runs as an ordinary process. It needs neither KVM nor
 * a hypervisor, and `kill -9` is a power cut. The machines of a lab live in namespaces of its own.
 */
export const umlProvider: Provider = {
  name: 'uml',
  probe: (signal) => probe(['unshare', ...unshareArgs(), 'sh', '-c', inNamespace, 'lab'], signal),
  preflight: async (lab) => {
    const running = ((await runningMachines(lab)) ?? []).some((machine) => machine.running)
    return [...(await preflight(lab, running)), ...(await lunProblems(lab))]
  },
  prepare: async (lab, preparation) => {
    const images = imagesOf(lab)
    if (!('missing' in (await preparedParts({ images })))) return
    await needHostPackages(preparation)
    await prepareParts({ preparation, images })
  },
  states,
  dial: (lab, host, port) => connectThrough(socketOf(lab), host, port),
  destroy,
  leftovers,
  machines: {
    start,
    remove: async (lab, machine) => {
      if (await runningMachines(lab)) await callSupervisor(socketOf(lab), 'DELETE', `/machines/${machine}`)
      await rm(machineFolder(lab, machine), { recursive: true, force: true })
    },
    partsInUse,
  },
  power: {
    cut: async (lab, machine, only) => {
      if (!(await runningMachines(lab))) return
      const started = only && Date.parse(only.run.replace(/^since /, ''))
      if (Number.isNaN(started)) throw new Error(`${only?.run ?? ''}: no run of a machine`)
      const query = started === undefined ? '' : `?started=${String(started)}`
      await callSupervisor(socketOf(lab), 'DELETE', `/machines/${machine}${query}`)
    },
  },
  pause: {
    begin: (lab, machine) => setPaused(lab, machine, 'PUT'),
    end: (lab, machine) => setPaused(lab, machine, 'DELETE'),
  },
  network: {
    create: createNetwork,
    release: async (lab) => {
      const machines = await runningMachines(lab)
      if (machines && !machines.some(({ running }) => running)) await endSupervisor(lab)
    },
    look: async (lab) => {
      const machines = await runningMachines(lab)
      return machines
        ? { ok: true, saw: `namespaces with ${String(machines.length)} machines` }
        : { ok: false, saw: 'no supervisor runs' }
    },
    apiEndpoint: async (lab) => `https://127.0.0.1:${(await readFile(portFile(lab), 'utf8')).trim()}`,
    // ssh hands it to a shell, after it has put in what `%` stands for.
    proxyCommand: (lab) =>
      `${[process.execPath, dialScript, socketOf(lab)].map((word) => quote(word).replaceAll('%', '%%')).join(' ')} %h %p`,
  },
  disks: { lunDevice },
  images: { archive: (reference) => Promise.resolve(imageArchive(reference)) },
  console: { log: (lab, machine) => join(machineFolder(lab, machine), 'console.log') },
  snapshots,
}

export const makeProvider = (): Provider => umlProvider
