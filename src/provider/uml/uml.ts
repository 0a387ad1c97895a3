import { existsSync, readlinkSync, readdirSync } from 'node:fs'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { apiAddressOf, type Lab, type MachineSpec } from '../../lab/lab.js'
import { quote } from '../../machine/sh.js'
import { mountsBelow } from '../../mounts.js'
import { pathsOf, removeState } from '../../state.js'
import type { Leftover, MachineState, Provider } from '../provider.js'
import { lives, processAt } from '../../processes.js'
import { processesOf } from './processes.js'
import { snapshots } from './snapshots.js'
import { callSupervisor, connectThrough, SupervisorRefusal } from './tunnel.js'
import {
  argvOf,
  baseOf,
  differenceOf,
  forgetMachine,
  lunDevice,
  macOf,
  machineFolder,
  partsInUse,
  smallLun,
} from './machine.js'
import {
  createNetwork,
  endSupervisor,
  gatewayOf,
  inNamespace,
  lastLine,
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
  return Promise.resolve([
    ...processes.map(({ what }): Leftover => ({ kind: 'process', what })),
    ...[...namespaces].map((what): Leftover => ({ kind: 'namespace', what })),
    ...mountsBelow(root).map(({ text }): Leftover => ({ kind: 'mount', what: text })),
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

/**
 * User-Mode Linux: every machine is a Linux kernel that runs as an ordinary process. It needs neither KVM nor a
 * hypervisor, and `kill -9` is a power cut. The machines of a lab run in namespaces of their own.
 */
export const umlProvider: Provider = {
  name: 'uml',
  probe: async (signal) =>
    (await import('./preflight.js')).probe(
      ['unshare', ...unshareArgs(), 'sh', '-c', inNamespace, 'lab'],
      signal,
    ),
  preflight: async (lab) => {
    const running = ((await runningMachines(lab)) ?? []).some((machine) => machine.running)
    const { lunProblems, preflight } = await import('./preflight.js')
    return [...(await preflight(lab, running)), ...(await lunProblems(lab))]
  },
  prepare: async (lab, preparation) => (await import('./make.js')).prepare(lab, preparation),
  states,
  dial: (lab, host, port) => connectThrough(socketOf(lab), host, port),
  destroy,
  leftovers,
  machines: {
    start: async (lab, machine, files) => (await import('./make.js')).start(lab, machine, files),
    remove: async (lab, machine) => {
      if (await runningMachines(lab)) await callSupervisor(socketOf(lab), 'DELETE', `/machines/${machine}`)
      await forgetMachine(lab, machine)
      await rm(machineFolder(lab, machine), { recursive: true, force: true })
    },
    parts: async (lab) => (await import('./make.js')).partsOf(lab),
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
  images: { archive: async (reference) => (await import('../../parts/nodes.js')).imageArchive(reference) },
  console: { log: (lab, machine) => join(machineFolder(lab, machine), 'console.log') },
  snapshots,
}

export const makeProvider = (): Provider => umlProvider
