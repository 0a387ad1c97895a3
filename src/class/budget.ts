/** Whether a host has room for a class, and for how many seats. */

/** The needs of one seat. */
export interface SeatNeeds {
  /** Bytes: the most that its machines can use, and the memory of its other processes. */
  readonly memory: number
  /** Processes and threads. */
  readonly tasks: number
  /** Bytes on disk at once, and if its LUNs get full. */
  readonly disk: number
  readonly diskAtMost: number
  /** Processors that its machines use when they are idle. */
  readonly processors: number
}

/** What is free on the host. */
export interface Room {
  readonly memory: number
  readonly tasks: number
  readonly disk: number
  readonly processors: number
}

export interface Verdict {
  /** How many more seats fit. */
  readonly fits: number
  /** What is insufficient for the requested number, one sentence each. */
  readonly short: readonly string[]
  /** What may become insufficient later. */
  readonly warnings: readonly string[]
}

/** The share of the processors that idle machines may use, so that the rest is free for work. */
const restShare = 0.75

const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`

/** @param count seats that are not running yet */
export const budget = (count: number, seat: SeatNeeds, room: Room): Verdict => {
  const resources = [
    { what: 'memory', each: seat.memory, has: room.memory, text: gib },
    { what: 'disk', each: seat.disk, has: room.disk, text: gib },
    {
      what: 'processes',
      each: seat.tasks,
      has: room.tasks,
      text: (value: number) => String(Math.floor(value)),
    },
    {
      what: 'processors at rest',
      each: seat.processors,
      has: room.processors * restShare,
      text: (value: number) => value.toFixed(1),
    },
  ]
  const fitting = ({ each, has }: { each: number; has: number }): number =>
    each <= 0 ? Infinity : Math.max(0, Math.floor(has / each))
  return {
    fits: Math.min(...resources.map(fitting)),
    short: resources
      .filter((resource) => fitting(resource) < count)
      .map(
        ({ what, each, has, text }) =>
          `${what}: ${String(count)} seats need ${text(each * count)}, and ${text(Math.max(0, has))} are free`,
      ),
    warnings:
      seat.diskAtMost * count > room.disk
        ? [
            `if every seat fills its LUNs, that takes ${gib(seat.diskAtMost * count)} of disk, and ${gib(room.disk)} are free`,
          ]
        : [],
  }
}
