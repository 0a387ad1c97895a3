/** The processes of this host according to /proc, of any program; without /proc there are none. */
import { readdirSync, readFileSync } from 'node:fs'

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

/** Together with the pid it identifies one process; undefined if that has ended. */
export const startOf = (pid: number): string | undefined => (lives(pid) ? processAt(pid)?.began : undefined)

/** Its arguments, as far as they can be read. */
export const argumentsOf = (pid: number): readonly string[] => {
  try {
    return readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8').split('\0')
  } catch {
    return []
  }
}
