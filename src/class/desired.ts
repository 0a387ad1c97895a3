/** The desired state of a class: its present state, changed by what was typed. */
import { hostname } from 'node:os'
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { listenAddress, reachableAt } from '../listen.js'
import { type ClassFile, mostSeats, newSecret, newTeacher, seatsOf } from './class.js'

/** What a teacher types: numbers are not checked yet. */
export interface ClassRequest {
  readonly count: string
  readonly listen?: string
  readonly address?: string
  readonly hours?: string
  readonly lang?: 'en' | 'ja'
  readonly size?: 'full' | 'small'
  /** A hosts.yaml: those hosts take a part of the seats. */
  readonly hosts?: string
}

const wholeNumber = (text: string, what: string, most: number): number => {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (value < 1 || value > most)
    throw new LabError('bad-number', `${what} ${text}: from 1 to ${String(most)}`, {
      hint: 'lab class up iscsi --count 10',
      exitCode: exitCodes.usage,
    })
  return value
}

/** @throws LabError if a number is out of range, or a running class cannot be changed in this way */
export const wantedClass = (lab: Lab, options: ClassRequest, before: ClassFile | undefined): ClassFile => {
  const count = wholeNumber(options.count, '--count', mostSeats)
  const { host, port } = listenAddress(
    options.listen ??
      (before
        ? `${before.host.includes(':') ? `[${before.host}]` : before.host}:${String(before.port)}`
        : '127.0.0.1:8443'),
  )
  if (port === 0)
    throw new LabError(
      'no-port',
      '--listen: the gateway needs a port of its own, because it is on the cards',
      {
        hint: `lab class up ${lab.name} --count ${String(count)} --listen ${host}:8443`,
        exitCode: exitCodes.usage,
      },
    )
  if (before && count < before.seats.length)
    throw new LabError(
      'fewer-seats',
      `the class ${lab.name} has ${String(before.seats.length)} seats, but --count is ${String(count)}: the number of seats can only grow`,
      {
        hint: `lab class down --lab ${lab.name}`,
        exitCode: exitCodes.usage,
      },
    )
  if (before && (host !== before.host || port !== before.port))
    throw new LabError(
      'other-address',
      `the gateway of ${lab.name} listens at ${before.host}, port ${String(before.port)}, which is also the address on the cards`,
      { hint: `lab class down --lab ${lab.name}`, exitCode: exitCodes.usage },
    )
  if (before && options.size !== undefined && options.size !== before.size)
    throw new LabError('other-size', `the seats of ${lab.name} have the size ${before.size}`, {
      hint: `lab class down --lab ${lab.name}`,
      exitCode: exitCodes.usage,
    })
  const hours = wholeNumber(options.hours ?? '10', '--hours', 24 * 31)
  return {
    schema: 'lab.class/v1',
    lab: lab.name,
    from: lab.name,
    size: options.size ?? before?.size ?? 'full',
    language: options.lang ?? before?.language ?? 'en',
    seats: [...seatsOf(count, before?.seats)],
    teacher: before?.teacher ?? newTeacher(),
    secret: before?.secret ?? newSecret(),
    host,
    port,
    address: options.address ?? before?.address ?? reachableAt(host)[0] ?? hostname(),
    until:
      before && options.hours === undefined
        ? before.until
        : new Date(Date.now() + hours * 3_600_000).toISOString(),
  }
}
