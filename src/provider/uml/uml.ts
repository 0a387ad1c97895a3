import { spawn } from 'node:child_process'
import { execa } from 'execa'
import { existsSync, readFileSync, readlinkSync, readdirSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rm, stat, statfs, truncate } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { freemem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { LabError } from '../../error.js'
import { addressText, hostNumber, parseAddress, parseSubnet, type Subnet } from '../../lab/address.js'
import { imagesOf } from '../../lab/images.js'
import { type Lab, type MachineSpec, machinesWith } from '../../lab/lab.js'
import { serialOf, tarOf } from '../../machine/files.js'
import { sshTransport } from '../../machine/ssh.js'
import { needHostPackages } from '../../parts/host.js'
import { imageArchive, preparedParts, prepareParts } from '../../parts/parts.js'
import { labKeys, machineKeys } from '../../machine/keys.js'
import { madeLabs, pathsOf, removeState, writePrivate } from '../../state.js'
import type { Leftover, MachineState, Provider, Usability } from '../provider.js'
import type { RunningMachine, StartRequest } from './supervisor.js'
import { callSupervisor, connectThrough } from './tunnel.js'

const supervisorScript = fileURLToPath(new URL('./supervisor.js', import.meta.url))
const dialScript = fileURLToPath(new URL('./dial.js', import.meta.url))

const socketOf = (lab: Pick<Lab, 'name'>): string => join(pathsOf(lab.name).root, 'supervisor.sock')
const supervisorLog = (lab: Pick<Lab, 'name'>): string => join(pathsOf(lab.name).root, 'supervisor.log')

/** Where the host's 127.0.0.1 leads into the lab: the API server's port there. */
const portFile = (lab: Pick<Lab, 'name'>): string => join(pathsOf(lab.name).root, 'api-port')

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

const machineFolder = (lab: Pick<Lab, 'name'>, machine: string): string => pathsOf(lab.name).machine(machine)

interface Lun {
  /** The raw file behind it, named by the serial number: a LUN keeps its data when others come or go. */
  readonly path: string
  /** Bytes. */
  readonly size: number
}

const lunsOf = (lab: Lab, machine: MachineSpec): readonly Lun[] =>
  lab.targets
    .filter((target) => target.machine === machine.name)
    .flatMap((target) =>
      target.luns.map(({ lun, size }) => ({
        path: join(machineFolder(lab, machine.name), `lun-${serialOf(target, lun)}.raw`),
        size,
      })),
    )

/** `ubda` is the root disk, `ubdb` the seed; LUNs follow. */
const lunDevice = (index: number): string => `/dev/ubd${String.fromCharCode('c'.charCodeAt(0) + index)}`

/** The base disk and kernel a machine was made with: its copy-on-write disk is of no use with others. */
interface MachineBase {
  readonly kernel: string
  readonly baseDisk: string
}

const baseOf = async (lab: Pick<Lab, 'name'>, machine: string): Promise<MachineBase | undefined> => {
  const text = await readFile(join(machineFolder(lab, machine), 'base.json'), 'utf8').catch(() => undefined)
  return text === undefined ? undefined : (JSON.parse(text) as MachineBase)
}

/** Of every lab there is: a copy-on-write disk is worthless without the base disk below it. */
const partsInUse = async (): Promise<readonly string[]> => {
  const used: string[] = []
  for (const lab of await madeLabs())
    for (const machine of await readdir(join(pathsOf(lab).root, 'machines')).catch(() => [])) {
      const base = await baseOf({ name: lab }, machine)
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

const linkOf = (lab: Lab, machine: MachineSpec): StartRequest['link'] => {
  const host = String(hostNumber(subnetOf(lab), parseAddress(machine.address) ?? 0))
  return [`b${host}`, `v${host}`]
}

/**
 * The same at every boot: neighbours remember it for half a minute, and would send to the machine's former
 * self. 02 marks an address that nobody else has given out.
 */
const macOf = (machine: MachineSpec): string =>
  ['02', '4c', ...machine.address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))].join(
    ':',
  )

const argvOf = (lab: Lab, machine: MachineSpec, base: MachineBase): readonly string[] => {
  const folder = machineFolder(lab, machine.name)
  return [
    base.kernel,
    `mem=${String(Math.floor(machine.memory / 1024 ** 2))}M`,
    `umid=${machine.name}`,
    `uml_dir=${join(folder, 'uml')}/`,
    'seccomp=auto',
    `ubd0=${join(folder, 'root.cow')},${base.baseDisk}`,
    `ubd1r=${join(folder, 'seed.tar')}`,
    ...lunsOf(lab, machine).map(({ path }, index) => `ubd${String(index + 2)}=${path}`),
    'root=/dev/ubda',
    'rw',
    'labseed=/dev/ubdb',
    `vec0:transport=raw,ifname=${linkOf(lab, machine)[1]},mac=${macOf(machine)},depth=128,gro=1`,
    'con=null',
    'con0=null,fd:1',
    'panic=-1',
  ]
}

/** `0-1,4`, as the kernel writes it. */
const cpuList = (text: string): readonly number[] =>
  text.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })

/**
 * Control planes, which have the most to do, get CPUs of their own where there are enough; the others share the
 * rest. Where a lab begins follows from its name, so that two labs do not crowd the same CPU.
 */
export const assignCpu = (lab: Lab, machine: MachineSpec, cpus: readonly number[]): number => {
  const busy = machinesWith(lab, 'control-plane')
  const others = lab.machines.filter((other) => !busy.includes(other))
  const own = busy.length < cpus.length ? busy.length : 0
  const place = busy.includes(machine)
    ? busy.indexOf(machine)
    : own + (others.indexOf(machine) % (cpus.length - own))
  const shift = Buffer.from(lab.name).reduce((sum, byte) => sum + byte, 0)
  return cpus[(place + shift) % cpus.length] ?? 0
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
  const text = await readFile(path, 'utf8').catch(() => '')
  const lines = text.trimEnd().split('\n')
  const panic = lines.findLast((line) => line.includes('Kernel panic'))
  return (panic ?? lines.at(-1) ?? '').trim()
}

const runningMachines = async (lab: Pick<Lab, 'name'>): Promise<readonly RunningMachine[] | undefined> => {
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
  const root = pathsOf(lab.name).root
  await mkdir(root, { recursive: true, mode: 0o700 })
  await rm(socketOf(lab), { force: true })
  const listener = await listenOnLoopback(lab)
  // Node's documented stdio takes a descriptor; a listening server keeps its own in its handle.
  const { fd } = (listener as unknown as { _handle: { fd: number } })._handle
  const log = await open(supervisorLog(lab), 'w', 0o600)
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
    const differs = spec && (differenceOf(found.argv, argvOf(lab, spec, base)) ?? (await smallLun(lab, spec)))
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

const start: Provider['start'] = async (lab, machine, files) => {
  const folder = machineFolder(lab, machine.name)
  await mkdir(join(folder, 'uml'), { recursive: true, mode: 0o700 })
  let base = await baseOf(lab, machine.name)
  if (!base) {
    const parts = await preparedParts({ images: imagesOf(lab) })
    if ('missing' in parts)
      throw new LabError('not-prepared', `parts are missing: ${parts.missing.join(', ')}`, {
        hint: `lab prepare ${lab.name}`,
      })
    base = { kernel: parts.kernel, baseDisk: parts.baseDisk }
  } else if (!existsSync(base.baseDisk) || !existsSync(base.kernel)) {
    throw new LabError(
      'base-gone',
      `${machine.name}: ${base.baseDisk} is gone, and its disk is of no use without it`,
      {
        hint: `lab down ${lab.name}, then lab up ${lab.name}`,
      },
    )
  }
  const keys = await labKeys(lab.name)
  const own = await machineKeys(lab.name, machine.name)
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
  // Written last: a machine without it is absent, and is made anew.
  await writePrivate(join(folder, 'base.json'), JSON.stringify(base))
  const request: StartRequest = {
    argv: argvOf(lab, machine, base),
    cpu: await cpuOf(lab, machine),
    console: join(folder, 'console.log'),
    link: linkOf(lab, machine),
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

/** Processes that belong to the lab: its supervisor, and machines whose root disk lies in its folder. */
const processesOf = (lab: Pick<Lab, 'name'>): readonly { pid: number; what: string }[] => {
  const root = pathsOf(lab.name).root
  const found: { pid: number; what: string }[] = []
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const argv = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0')
      if (argv.includes(supervisorScript) && argv.includes(socketOf(lab)))
        found.push({ pid: Number(entry), what: `supervisor, pid ${entry}` })
      else if (argv.some((word) => word.startsWith(`ubd0=${root}/machines/`)))
        found.push({
          pid: Number(entry),
          what: `machine ${argv.find((word) => word.startsWith('umid='))?.slice(5) ?? '?'}, pid ${entry}`,
        })
    } catch {
      // The process ended while we looked.
    }
  }
  return found
}

const leftovers: Provider['leftovers'] = (lab) => {
  const root = pathsOf(lab.name).root
  const processes = processesOf(lab)
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
const endSupervisor = (lab: Pick<Lab, 'name'>): Promise<unknown> =>
  callSupervisor(socketOf(lab), 'DELETE', '/').catch(() => undefined)

const destroy: Provider['destroy'] = async (lab) => {
  await endSupervisor(lab)
  const until = Date.now() + 10_000
  for (;;) {
    const processes = processesOf(lab)
    if (processes.length === 0) break
    for (const { pid } of processes) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch (error) {
        // Gone already is what is wanted; anything else shows as a leftover.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') break
      }
    }
    if (Date.now() > until) break
    await delay(50)
  }
  await removeState(pathsOf(lab.name))
}

const probe = async (signal: AbortSignal): Promise<Usability> => {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return {
      usable: false,
      evidence: `this is ${process.platform} on ${process.arch}; User-Mode Linux needs Linux on x64`,
      remedy: 'use a provider with virtual machines: --provider virtualbox',
    }
  const attempt = await execa(
    'unshare',
    [
      ...unshareArgs(),
      'sh',
      '-c',
      inNamespace,
      'lab',
      'sh',
      '-c',
      'ip link add lab0 type bridge && ip link add b1 type veth peer name v1 && ip link set b1 master lab0',
    ],
    { reject: false, cancelSignal: signal, timeout: 10_000, stdin: 'ignore' },
  )
  if (attempt.exitCode !== 0)
    return {
      usable: false,
      evidence: `a bridge in namespaces of our own: ${attempt.stderr.trim() || (attempt.originalMessage ?? 'failed')}`,
      remedy: isRoot()
        ? 'apt-get install -y iproute2 util-linux mount'
        : 'sudo sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0, or run lab as root',
    }
  const parts = await preparedParts()
  const namespaces = `namespaces, bridge and veth work as ${isRoot() ? 'root' : 'this user'}`
  if ('missing' in parts)
    return { usable: true, evidence: `${namespaces}; the kernel is not built yet, so it could not be booted` }
  const boot = await execa(
    parts.kernel,
    ['mem=64M', 'con=null', 'con0=null,fd:1', 'panic=-1', 'seccomp=auto'],
    {
      reject: false,
      cancelSignal: signal,
      timeout: 10_000,
      stdin: 'ignore',
      env: { TMPDIR: '/dev/shm' },
    },
  )
  const said = `${boot.stdout}\n${boot.stderr}`
  const version = /Linux version (\S+)/.exec(said)?.[1]
  return version === undefined
    ? {
        usable: false,
        evidence: `${namespaces}, but the kernel does not boot: ${said.trim().split('\n').at(-1) ?? ''}`,
      }
    : { usable: true, evidence: `${namespaces}; a kernel ${version} booted` }
}

const preflight: Provider['preflight'] = async (lab) => {
  const problems: { problem: string; hint: string }[] = []
  const wanted = lab.machines.reduce((sum, machine) => sum + machine.memory, 0)
  const running = ((await runningMachines(lab)) ?? []).some((machine) => machine.running)
  const available = availableMemory()
  const gib = (bytes: number): string => (bytes / 1024 ** 3).toFixed(1)
  if (!running && wanted > available)
    problems.push({
      problem: `the machines of ${lab.name} want ${gib(wanted)} GiB of memory, ${gib(available)} GiB are free`,
      hint: `make memory: of some machines smaller in ${lab.file}, or stop another lab: lab list`,
    })
  const disk = await statfs(existsSync(pathsOf(lab.name).root) ? pathsOf(lab.name).root : '/var/tmp')
  const free = disk.bavail * disk.bsize
  const needed = 2 * 1024 ** 3 * lab.machines.length * 0.5
  if (!running && free < needed)
    problems.push({
      problem: `${gib(free)} GiB of disk are free, ${gib(needed)} GiB are needed`,
      hint: 'df -h; lab prepare --prune removes what earlier versions built',
    })
  return problems
}

/** Bytes that can be used without swapping, as the kernel reckons. */
const availableMemory = (): number => {
  const found = /MemAvailable:\s+(\d+) kB/.exec(readFileSync('/proc/meminfo', 'utf8'))
  return found ? Number(found[1]) * 1024 : freemem()
}

/**
 * User-Mode Linux: every machine is a Linux kernel that runs as an ordinary process. It needs neither KVM nor
 * a hypervisor, and `kill -9` is a power cut. The machines of a lab live in namespaces of its own.
 */
export const umlProvider: Provider = {
  name: 'uml',
  probe,
  preflight,
  prepare: async (lab, preparation) => {
    const images = imagesOf(lab)
    if (!('missing' in (await preparedParts({ images })))) return
    await needHostPackages(preparation)
    await prepareParts({ preparation, images })
  },
  createNetwork,
  releaseNetwork: async (lab) => {
    const machines = await runningMachines(lab)
    if (machines && !machines.some(({ running }) => running)) await endSupervisor(lab)
  },
  network: async (lab) => {
    const machines = await runningMachines(lab)
    return machines
      ? { ok: true, saw: `namespaces with ${String(machines.length)} machines` }
      : { ok: false, saw: 'no supervisor runs' }
  },
  apiEndpoint: async (lab) => `https://127.0.0.1:${(await readFile(portFile(lab), 'utf8')).trim()}`,
  states,
  start,
  cut: async (lab, machine) => {
    if (await runningMachines(lab)) await callSupervisor(socketOf(lab), 'DELETE', `/machines/${machine}`)
  },
  pause: async (lab, machine) => {
    if (await runningMachines(lab)) await callSupervisor(socketOf(lab), 'PUT', `/paused/${machine}`)
  },
  resume: async (lab, machine) => {
    if (await runningMachines(lab)) await callSupervisor(socketOf(lab), 'DELETE', `/paused/${machine}`)
  },
  remove: async (lab, machine) => {
    if (await runningMachines(lab)) await callSupervisor(socketOf(lab), 'DELETE', `/machines/${machine}`)
    await rm(machineFolder(lab, machine), { recursive: true, force: true })
  },
  transport: async (lab, machine) => {
    const { privateKey } = await labKeys(lab.name)
    const { publicKey } = await machineKeys(lab.name, machine.name)
    return sshTransport({
      address: `${machine.name} (${machine.address})`,
      user: 'root',
      privateKey,
      hostKey: publicKey.split(' ')[1] ?? '',
      dial: () => connectThrough(socketOf(lab), machine.address, 22),
    })
  },
  dial: (lab, host, port) => connectThrough(socketOf(lab), host, port),
  proxyCommand: (lab) => `${process.execPath} ${dialScript} ${socketOf(lab)} %h %p`,
  lunDevice,
  imageArchive: (reference) => Promise.resolve(imageArchive(reference)),
  partsInUse,
  consoleLog: (lab, machine) => join(machineFolder(lab, machine), 'console.log'),
  destroy,
  leftovers,
}
