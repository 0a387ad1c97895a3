/** The needs of a seat of a lab, and the resources of the host: for the budget of a class. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { Lab } from '../lab/lab.js'
import { availableMemory, taskLimits } from '../provider/uml/limits.js'
import { labNeeds } from '../provider/uml/preflight.js'
import { freeSpace } from '../state.js'
import type { Room, SeatNeeds } from './budget.js'

const MiB = 1024 ** 2

/** Bytes at a seat in addition to its machines: the supervisor, tmux, a shell, and an occasional `lab` command. */
const beside = 160 * MiB

/** Bytes that are reserved for the host and the gateway. */
const reserve = 768 * MiB

/**
 * Processors that an idle machine uses: an estimate for nodes of Kubernetes, based on a lab of three that used 0.3.
 */
const atRest = { node: 0.1, other: 0.005 }

export const seatNeeds = (lab: Lab): SeatNeeds => {
  const { memory, tasks, diskAtOnce, diskAtMost } = labNeeds(lab)
  const nodes = lab.machines.filter(({ role }) => role === 'control-plane' || role === 'worker').length
  return {
    memory: memory + beside,
    tasks: tasks + 40,
    disk: diskAtOnce,
    diskAtMost,
    processors: nodes * atRest.node + (lab.machines.length - nodes) * atRest.other,
  }
}

/** Bytes for a student's other programs, beyond which the seat's own processes are killed: an estimate. */
const beyond = 512 * MiB

/** The most memory of a seat, in bytes. */
export const mostMemory = (lab: Lab): number => seatNeeds(lab).memory + beyond

/** Bytes for a student's own files, and for what an estimate missed. */
const ownFiles = 1024 ** 3

/**
 * The size of a seat's disk in bytes: its lab with full LUNs, a snapshot of it, and another one that replaces that
 * one.
 */
export const mostDisk = (lab: Lab): number =>
  Math.ceil((seatNeeds(lab).diskAtMost * 3 + ownFiles) / MiB) * MiB

const numberIn = (path: string): number => {
  try {
    return Number(readFileSync(path, 'utf8'))
  } catch {
    return Infinity
  }
}

/** @param folder where seats will be, or one above it */
export const roomHere = async (folder: string): Promise<Room> => {
  const tasks = [
    ...taskLimits().map(({ free }) => free),
    numberIn('/proc/sys/kernel/pid_max'),
    numberIn('/proc/sys/kernel/threads-max'),
  ]
  return {
    memory: Math.max(0, availableMemory().bytes - reserve),
    tasks: Math.min(...tasks),
    disk: await freeSpace(folder),
    processors: availableParallelism(),
  }
}
