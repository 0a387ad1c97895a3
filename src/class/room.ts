/** Whether the seats of a class fit on this host. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { budget } from './budget.js'
import { type ClassFile, classPaths } from './class.js'
import { roomHere, seatNeeds } from './needs.js'
import { heldBySeat, seatProcess } from './seat.js'

/** The nearest existing folder: the path itself, or one above it. */
const nearest = (path: string): string => (existsSync(path) || path === '/' ? path : nearest(dirname(path)))

/** @throws LabError `no-room`, with the number of seats that fit */
export const refuseTooMany = async (
  lab: Lab,
  wanted: ClassFile,
  notice: (text: string) => void,
): Promise<void> => {
  const needs = seatNeeds(lab)
  let running = 0
  /** Bytes that the seats which run may still come to hold. */
  let promised = 0
  for (const { id } of wanted.seats) {
    const seat = { class: wanted, id }
    if ((await seatProcess(seat)) === undefined) continue
    running++
    promised += Math.max(0, needs.memory - (await heldBySeat(seat)))
  }
  const room = await roomHere(nearest(classPaths(lab.name).root))
  const { fits, short, warnings } = budget(wanted.seats.length - running, needs, {
    ...room,
    memory: Math.max(0, room.memory - promised),
  })
  for (const warning of warnings) notice(warning)
  if (short.length === 0) return
  throw new LabError(
    'no-room',
    [
      `${String(wanted.seats.length)} seats of ${lab.name} do not fit on this host:`,
      ...short.map((line) => `  ${line}`),
    ].join('\n'),
    {
      hint: `lab class up ${lab.name} --count ${String(running + fits)}${wanted.size === 'small' ? '' : '; or with less memory for each machine: --size small'}`,
      exitCode: exitCodes.host,
    },
  )
}
