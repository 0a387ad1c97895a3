/** Whether the seats of a class fit on this host. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { budget, type Verdict } from './budget.js'
import { type ClassFile, classPaths } from './class.js'
import { roomHere, seatNeeds } from './needs.js'
import { heldBySeat, seatProcess, type SeatOf } from './seat.js'

/** The nearest existing folder: the path itself, or one above it. */
const nearest = (path: string): string => (existsSync(path) || path === '/' ? path : nearest(dirname(path)))

/** Whether this host has room for those seats that do not run. @param lab with the memory that machines have at a seat */
const judgeSeats = async (
  lab: Lab,
  seats: readonly SeatOf[],
): Promise<Verdict & { readonly running: number }> => {
  const needs = seatNeeds(lab)
  let running = 0
  /** Bytes that the seats which run may still come to hold. */
  let promised = 0
  for (const seat of seats) {
    if ((await seatProcess(seat)) === undefined) continue
    running++
    promised += Math.max(0, needs.memory - (await heldBySeat(seat)))
  }
  const room = await roomHere(nearest(classPaths(lab.name).root))
  const verdict = budget(seats.length - running, needs, {
    ...room,
    memory: Math.max(0, room.memory - promised),
  })
  return { ...verdict, running }
}

const seatsIn = (wanted: ClassFile): readonly SeatOf[] =>
  wanted.seats.map(({ id }) => ({ class: wanted, id }))

/** How many seats fit on this host in addition to those that the class has here. */
export const spareSeats = async (lab: Lab, present: ClassFile | undefined): Promise<number> => {
  const seats = present ? seatsIn(present) : []
  const { fits, running } = await judgeSeats(lab, seats)
  return Math.max(0, fits - (seats.length - running))
}

/** @throws LabError `no-room`, with the number of seats that fit */
export const refuseTooMany = async (
  lab: Lab,
  wanted: ClassFile,
  notice: (text: string) => void,
): Promise<void> => {
  const { fits, short, warnings, running } = await judgeSeats(lab, seatsIn(wanted))
  for (const warning of warnings) notice(warning)
  if (short.length === 0) return
  const most = running + fits
  const ways = [
    most === 0
      ? 'not even one seat fits: lab list shows what else runs here'
      : `lab class up ${lab.name} --count ${String(most)}`,
    ...(wanted.size === 'small' ? [] : ['with less memory for each machine: --size small']),
    'with other hosts: --hosts FILE',
  ]
  throw new LabError(
    'no-room',
    [
      `${String(wanted.seats.length)} seats of ${lab.name} do not fit on this host:`,
      ...short.map((line) => `  ${line}`),
    ].join('\n'),
    {
      hint: ways.join('; or '),
      exitCode: exitCodes.host,
    },
  )
}
