/** Whether a host has room for a class, and for how many seats it has. */

/** What one seat takes. */
export interface SeatNeeds {
  /** Bytes: what its machines may hold at most, and what runs beside them. */
  readonly memory: number
  /** Processes and threads. */
  readonly tasks: number
  /** Bytes on the disk at once, and if its LUNs are filled. */
  readonly disk: number
  readonly diskAtMost: number
  /** Processors that its machines use when nobody works on them. */
  readonly processors: number
}

/** What the host has left. */
export interface Room {
  readonly memory: number
  readonly tasks: number
  readonly disk: number
  readonly processors: number
}

export interface Verdict {
  /** How many more seats there is room for. */
  readonly fits: number
  /** What is short for the number that was asked for, a sentence each. */
  readonly short: readonly string[]
  /** What may become short later. */
  readonly warnings: readonly string[]
}

/** Share of the processors that machines may use at rest, so that something is left for who works. */
const restShare = 0.75

const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`

/** @param count seats that do not run yet */
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
