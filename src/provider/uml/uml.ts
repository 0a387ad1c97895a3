import { existsSync, readFileSync, readlinkSync, readdirSync } from 'node:fs'
import { chmod, lchown, mkdir, open, readdir, readFile, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { LabError } from '../../error.js'
import { imagesOf } from '../../lab/images.js'
import { apiAddressOf, type Lab, type MachineSpec } from '../../lab/lab.js'
import { disksProblem } from '../../lab/iscsi-rules.js'
import { sizeText } from '../../lab/units.js'
import { tarOf } from '../../machine/files.js'
import { quote } from '../../machine/sh.js'
import { needHostPackages } from '../../parts/host.js'
import { imageArchive, neededParts, preparedParts, prepareParts } from '../../parts/parts.js'
import { labKeys, machineKeys } from '../../machine/keys.js'
import { pathsOf, removeState, writePrivate } from '../../state.js'
import type { Leftover, Machines, MachineState, Provider } from '../provider.js'
import { type Bind } from './confine.js'
import { makeCow } from './cow.js'
import { preflight, probe } from './preflight.js'
import { lives, processAt, processesOf } from './processes.js'
import type { StartRequest } from './requests.js'
import { snapshots } from './snapshots.js'
import { callSupervisor, connectThrough, SupervisorRefusal } from './tunnel.js'
import {
  argvOf,
  baseOf,
  bindsOf,
  cpuOf,
  differenceOf,
  forgetMachine,
  linkOf,
  lunDevice,
  lunsOf,
  macOf,
  machineFolder,
  networkFile,
  noteMachine,
  partsInUse,
  seen,
  smallLun,
  userOf,
} from './machine.js'
import {
  createNetwork,
  endSupervisor,
  gatewayOf,
  inNamespace,
  lastLine,
  needNewSupervisor,
  portFile,
  redfishFile,
  redfishOf,
  runningMachines,
  socketOf,
  unshareArgs,
  wrongForward,
} from './network.js'

const dialScript = fileURLToPath(new URL('./dial.js', import.meta.url))

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

/** Gives the files of a machine to its user alone. In a lab of an earlier version they belong to root. */
const giveFiles = async (user: number | undefined, binds: readonly Bind[]): Promise<void> => {
  for (const { from, writable } of binds) {
    const own = writable === true || from.endsWith('/seed.tar')
    // For a link, the link itself: nothing else may change its owner.
    if (own && user !== undefined) await lchown(from, user, user)
    if (!own && user !== undefined) {
      // Parts contain no secrets, and the mode of their folder stays as it is.
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
    // The rest of a machine that was partly made, on an unknown base disk.
    await rm(join(folder, 'root.cow'), { force: true })
  } else if (!existsSync(base.baseDisk) || !existsSync(base.kernel)) {
    throw new LabError(
      'base-gone',
      `${machine.name}: ${base.baseDisk} is gone, and the machine's disk is useless without it`,
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
    // A LUN may grow but never shrinks, since there may be data at its end.
    if (has < size) await truncate(path, size)
  }
  if (!existsSync(join(folder, 'root.cow'))) await makeCow(join(folder, 'root.cow'), base.baseDisk, seen.base)
  const user = userOf(lab, machine.name)
  const binds = bindsOf(lab, machine, base)
  await giveFiles(user, binds)
  await noteMachine(lab, machine.name, base)
  // Written last: without this file the machine counts as absent and is made again.
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

const leftovers: Provider['leftovers'] = (lab) => {
  const root = pathsOf(lab).root
  const processes = processesOf(socketOf(lab))
  const namespaces = new Set<string>()
  for (const { pid } of processes) {
    try {
      const namespace = readlinkSync(`/proc/${String(pid)}/ns/net`)
      if (namespace !== readlinkSync('/proc/self/ns/net')) namespaces.add(namespace)
    } catch {
      // The process has ended meanwhile.
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

const destroy: Provider['destroy'] = async (lab) => {
  // Listed before the supervisor ends: afterwards, processes that are still ending can no longer be recognized.
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
        // A missing file is fine; anything else shows as a leftover.
      }
    }
    await delay(50)
  }
  for (const machine of await readdir(machineFolder(lab, '')).catch(() => []))
    await forgetMachine(lab, machine)
  await removeState(pathsOf(lab))
}

/** A machine that does not run is ignored; its state tells whether it is paused. */
const setPaused = async (lab: Lab, machine: string, method: 'PUT' | 'DELETE'): Promise<void> => {
  if (!(await runningMachines(lab))) return
  try {
    await callSupervisor(socketOf(lab), method, `/paused/${machine}`)
  } catch (error) {
    if (!(error instanceof SupervisorRefusal) || error.status !== 409) throw error
  }
}

/** Problems with the LUNs of a lab before anything is made: too many for a machine, or made smaller. */
const lunProblems = async (lab: Lab): Promise<readonly { problem: string; hint: string }[]> => {
  const problems: { problem: string; hint: string }[] = []
  for (const machine of lab.machines) {
    const luns = lunsOf(lab, machine)
    const tooMany = disksProblem(machine.name, luns.length, 'uml')
    if (tooMany !== undefined)
      problems.push({ problem: tooMany, hint: `use another machine with the role target in ${lab.file}` })
    for (const { path, size, target, lun } of luns) {
      const has = (await stat(path).catch(() => undefined))?.size ?? 0
      if (has > size)
        problems.push({
          problem: `LUN ${String(lun)} of ${target} has ${sizeText(has)}, but the lab file says ${sizeText(size)}: a disk that shrinks loses the data at its end`,
          hint: `write size: ${sizeText(has)} in ${lab.file}; or remove the lab with all its data: lab down ${lab.name}`,
        })
    }
  }
  return problems
}

/**
 * User-Mode Linux: every machine is a Linux kernel that runs as an ordinary process. It needs neither KVM nor a
 * hypervisor, and `kill -9` is a power cut. The machines of a lab run in namespaces of their own.
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
      await forgetMachine(lab, machine)
      await rm(machineFolder(lab, machine), { recursive: true, force: true })
    },
    parts: (lab) => neededParts({ images: imagesOf(lab) }),
    partsInUse,
  },
  power: {
    redfish: async (lab) => {
      const { username, password, certificate } = await redfishOf(lab)
      return {
        url: `https://${gatewayOf(lab)}/redfish/v1`,
        username,
        password,
        certificate,
        file: redfishFile(lab),
      }
    },
    cut: async (lab, machine, only) => {
      if (!(await runningMachines(lab))) return
      const started = only && Date.parse(only.run.replace(/^since /, ''))
      if (Number.isNaN(started)) throw new Error(`${only?.run ?? ''}: not a run of a machine`)
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
    observe: async (lab) => {
      const machines = await runningMachines(lab)
      const wrong = machines && (await wrongForward(lab))
      if (wrong !== undefined)
        return { ok: false, saw: `this host's port leads to ${wrong} instead of ${apiAddressOf(lab)}` }
      return machines
        ? { ok: true, saw: `namespaces with ${String(machines.length)} machines` }
        : { ok: false, saw: 'no supervisor is running' }
    },
    apiEndpoint: async (lab) => `https://127.0.0.1:${(await readFile(portFile(lab), 'utf8')).trim()}`,
    // ssh passes it to a shell after expanding `%` tokens.
    proxyCommand: (lab) =>
      `${[process.execPath, dialScript, socketOf(lab)].map((word) => quote(word).replaceAll('%', '%%')).join(' ')} %h %p`,
  },
  disks: { lunDevice },
  images: { archive: (reference) => Promise.resolve(imageArchive(reference)) },
  console: { log: (lab, machine) => join(machineFolder(lab, machine), 'console.log') },
  snapshots,
}

export const makeProvider = (): Provider => umlProvider
