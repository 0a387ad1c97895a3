/**
 * The processes of a lab according to /proc. Anybody can choose the arguments of a process, so they prove nothing: a
 * lab's supervisor is the first process of a PID namespace below ours, and all others descend from it.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'

export interface FoundProcess {
  readonly pid: number
  readonly parent: number
  /** `R`, `S`, `T`: stopped, `Z`: zombie. */
  readonly state: string
  /** Start time in ticks since the boot of the host: together with the pid it identifies one process. */
  readonly began: string
}

export const processAt = (pid: number): FoundProcess | undefined => {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8')
    // The name in parentheses may contain anything; the state and the parent follow it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { pid, state: fields[0] ?? '', parent: Number(fields[1]), began: fields[19] ?? '' }
  } catch {
    // The process has ended meanwhile.
    return undefined
  }
}

/** Names in /proc; none on a host without it, such as one with macOS, on which no machine of this kind runs. */
const entriesOfProc = (): readonly string[] => {
  try {
    return readdirSync('/proc')
  } catch {
    return []
  }
}

/** All processes. */
export const allProcesses = (): readonly FoundProcess[] =>
  entriesOfProc()
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => processAt(Number(name)) ?? [])

/** A process and all its descendants, itself first. */
export const familyOf = (
  pid: number,
  all: readonly FoundProcess[] = allProcesses(),
): readonly FoundProcess[] => {
  const children = new Map<number, FoundProcess[]>()
  for (const one of all) children.set(one.parent, [...(children.get(one.parent) ?? []), one])
  const below = (one: FoundProcess): readonly FoundProcess[] => [
    one,
    ...(children.get(one.pid) ?? []).flatMap(below),
  ]
  return all.filter((one) => one.pid === pid).flatMap(below)
}

/** A zombie no longer holds anything. */
export const lives = (pid: number): boolean => !/^[ZX]?$/.test(processAt(pid)?.state ?? '')

/** Its arguments, as far as they can be read. */
export const argumentsOf = (pid: number): readonly string[] => {
  try {
    return readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8').split('\0')
  } catch {
    return []
  }
}

/** Its pids in the PID namespaces that contain it, ours first. */
const numbersOf = (pid: number): readonly string[] => {
  const status = readFileSync(`/proc/${String(pid)}/status`, 'utf8')
  return /^NSpid:\s+(.*)$/m.exec(status)?.[1]?.split(/\s+/) ?? []
}

/**
 * Whether it is the supervisor that listens on this socket: a process of ours, and the first of a PID namespace
 * below.
 */
const isSupervisor = (pid: number, socket: string, user: number): boolean => {
  try {
    const [, script = '', listens] = argumentsOf(pid)
    return (
      basename(script) === 'supervisor.js' &&
      listens === socket &&
      statSync(`/proc/${String(pid)}`).uid === user &&
      numbersOf(pid).length > 1 &&
      numbersOf(pid).at(-1) === '1'
    )
  } catch {
    return false
  }
}

export interface LabProcess extends FoundProcess {
  readonly what: string
}

/**
 * The processes of the lab whose supervisor listens on this socket, the supervisor first. Without it there can be no
 * others, since the kernel ends them with it.
 */
export const processesOf = (socket: string): readonly LabProcess[] => {
  const all = allProcesses()
  const user = process.geteuid?.() ?? 0
  return all
    .filter(({ pid }) => isSupervisor(pid, socket, user))
    .flatMap(({ pid: supervisor }) =>
      familyOf(supervisor, all).map((one) => {
        const machine = argumentsOf(one.pid)
          .find((word) => word.startsWith('umid='))
          ?.slice('umid='.length)
        const role =
          one.pid === supervisor
            ? 'supervisor'
            : machine === undefined
              ? 'helper of a machine'
              : `machine ${machine}`
        return { ...one, what: `${role}, pid ${String(one.pid)}` }
      }),
    )
}
