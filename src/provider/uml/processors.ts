/**
 * Which of the host's processors each machine runs on. A lab spreads its machines evenly over the processors; where that
 * leaves a choice, a machine goes to the one that other labs load least.
 */
import { readFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { type LabId, labOf, turnOf } from '../../identity.js'
import type { Lab, MachineSpec } from '../../lab/lab.js'

/** A machine that runs on this host, of any lab and user. */
export interface HostMachine {
  /** The machine's folder, which no other machine of this host has. */
  readonly folder: string
  readonly cpu: number
  /** Bytes that its kernel was given. */
  readonly memory: number
}

/** `0-1,4`, as the kernel writes it. */
export const cpuList = (text: string): readonly number[] =>
  text.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })

/**
 * A control plane shares a processor only if there are four or more other machines for it, as in the measured setup.
 */
const controlPlaneWeight = 3

/** Bytes: every shipped lab gives its control plane this much, and few of its other machines. */
const controlPlaneMemory = 2 * 1024 ** 3

const weightOf = ({ role }: MachineSpec): number => (role === 'control-plane' ? controlPlaneWeight : 1)

/** The role of another lab's machine is unknown. */
const weightByMemory = ({ memory }: HostMachine): number =>
  memory >= controlPlaneMemory ? controlPlaneWeight : 1

type Loads = Map<number, number>

const add = (loads: Loads, cpu: number, weight: number): void => {
  loads.set(cpu, (loads.get(cpu) ?? 0) + weight)
}

/** Those of `cpus` that have the least load. */
const leastLoaded = (cpus: readonly number[], loads: Loads): readonly number[] => {
  const least = Math.min(...cpus.map((cpu) => loads.get(cpu) ?? 0))
  return cpus.filter((cpu) => (loads.get(cpu) ?? 0) === least)
}

/**
 * Distributes machines, the heaviest first, and adds them to `own`. The load of other labs decides only between
 * processors that this lab loads equally: they may end at any moment, and a running machine is never moved. Among
 * equal processors, the first one from `from` on is chosen.
 */
const deal = (
  machines: readonly MachineSpec[],
  cpus: readonly number[],
  own: Loads,
  others: Loads,
  from: number,
): ReadonlyMap<string, number> => {
  const inTurn = cpus.map((_, index) => cpus[(from + index) % cpus.length] ?? 0)
  const dealt = new Map<string, number>()
  for (const machine of [...machines].sort((a, b) => weightOf(b) - weightOf(a))) {
    const cpu = leastLoaded(leastLoaded(inTurn, own), others)[0] ?? 0
    dealt.set(machine.name, cpu)
    add(own, cpu, weightOf(machine))
  }
  return dealt
}

/** The number of a seat; undefined if its name is not a number, or the lab has no seat. */
const numberOf = ({ seat }: LabId): number | undefined =>
  seat !== undefined && /^\d{1,5}$/.test(seat) ? Number(seat) : undefined

/**
 * The processor for a machine that is about to start.
 * Seats with numbers cannot see each other where each has a PID namespace of its own, and they start at once: seat 7
 * takes what is left if seats 1 to 6 are dealt out before it. Everything else on the host counts as it is found there.
 * @param cpus those that this process may use
 * @param running machines on this host, as `machinesOnHost` finds them
 * @param folderOf the folder of a machine of this lab
 */
export const assignCpu = (
  lab: Lab,
  machine: MachineSpec,
  cpus: readonly number[],
  running: readonly HostMachine[] = [],
  folderOf: (machine: string) => string = (name) => name,
): number => {
  const own = new Map(lab.machines.map(({ name }) => [folderOf(name), name]))
  const ofOtherSeat = ({ folder }: HostMachine): boolean => {
    // LAB_STATE/NAME@SEAT/machines/MACHINE
    const id = labOf(basename(folder.split('/').slice(0, -2).join('/')))
    return id?.name === lab.name && numberOf(id) !== undefined && numberOf(lab) !== undefined
  }
  const others: Loads = new Map()
  for (const other of running)
    if (!own.has(other.folder) && !ofOtherSeat(other)) add(others, other.cpu, weightByMemory(other))
  const number = numberOf(lab)
  // One step per seat: if all are equally busy, not every control plane goes to the same processor.
  const first = turnOf(number === undefined ? lab : { name: lab.name }, lab.machines.length)
  for (let seat = 1; seat < (number ?? 0); seat++) {
    const seated: Loads = new Map()
    deal(lab.machines, cpus, seated, others, first + seat)
    for (const [cpu, weight] of seated) add(others, cpu, weight)
  }
  const from = first + (number ?? 0)
  // Machines of this lab that run stay where they are.
  const stay = new Set<string>()
  const loads: Loads = new Map()
  for (const { folder, cpu } of running) {
    const name = own.get(folder)
    const spec = lab.machines.find((candidate) => candidate.name === name)
    if (spec === undefined || name === machine.name || !cpus.includes(cpu)) continue
    add(loads, cpu, weightOf(spec))
    stay.add(spec.name)
  }
  const toDeal = lab.machines.filter(({ name }) => !stay.has(name))
  return deal(toDeal, cpus, loads, others, from).get(machine.name) ?? cpus[0] ?? 0
}

/** The processors that this process may use. */
export const ownCpus = (): readonly number[] => {
  const status = readFileSync('/proc/self/status', 'utf8')
  return cpuList(/^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? '0')
}

/**
 * One machine, from the words of its kernel's command line and from /proc/PID/status; undefined if it is not a
 * machine.
 */
export const hostMachine = (words: readonly string[], status: string): HostMachine | undefined => {
  const value = (name: string): string | undefined =>
    words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1)
  const [folder, memory] = [value('labfolder'), /^(\d+)M$/.exec(value('mem') ?? '')?.[1]]
  const allowed = /^Cpus_allowed_list:\s*(\d+)$/m.exec(status)?.[1]
  if (folder === undefined || memory === undefined || allowed === undefined) return undefined
  try {
    return { folder: decodeURI(folder), cpu: Number(allowed), memory: Number(memory) * 1024 ** 2 }
  } catch {
    // A process of somebody else with an argument that looks like ours.
    return undefined
  }
}

/** All machines that run on this host, as far as this process's /proc shows them. */
export const machinesOnHost = async (): Promise<readonly HostMachine[]> => {
  const found = new Map<string, HostMachine>()
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    try {
      const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0')
      if (!words.some((word) => word.startsWith('labfolder='))) continue
      const machine = hostMachine(words, await readFile(`/proc/${pid}/status`, 'utf8'))
      if (machine) found.set(machine.folder, machine)
    } catch {
      // It ended in the meantime.
    }
  }
  return [...found.values()]
}
