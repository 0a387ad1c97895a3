/**
 * The processes of a lab according to /proc. Anybody can choose the arguments of a process, so they prove nothing: a
 * lab's supervisor is the first process of a PID namespace below ours, and all others descend from it.
 */
import { readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { allProcesses, argumentsOf, familyOf, type FoundProcess } from '../../processes.js'

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
