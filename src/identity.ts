/** The identity of a lab: its name, and its seat when several labs of one name share a host. */
import { exitCodes, LabError } from './error.js'

/** Everything of a lab on the host is named after this: its folder, locks, networks, machines and processor. */
export interface LabId {
  readonly name: string
  /** Lower-case letters, digits and dashes. Undefined: the lab is the only one of this name on the host. */
  readonly seat?: string | undefined
}

/** A word that is unique to the lab on this host. Neither names nor seats contain `@`. */
export const wordOf = ({ name, seat }: LabId): string => (seat === undefined ? name : `${name}@${seat}`)

/** The lab with this word; undefined if the word names none. */
export const labOf = (word: string): LabId | undefined => {
  const [, name, seat] = /^([a-z0-9-]+)(?:@([a-z0-9-]+))?$/.exec(word) ?? []
  if (name === undefined) return undefined
  return seat === undefined ? { name } : { name, seat }
}

/**
 * The seat of this process, from LAB_SEAT; undefined without one.
 * @throws LabError for an invalid seat
 */
export const seatHere = (): string | undefined => {
  const seat = process.env['LAB_SEAT']
  if (seat === undefined || seat === '') return undefined
  // At most 16 characters: the folder of a lab holds Unix sockets, whose paths must be short.
  if (/^[a-z0-9-]{1,16}$/.test(seat)) return seat
  throw new LabError('bad-seat', `LAB_SEAT=${seat}: a seat has up to 16 of a-z, 0-9 and -`, {
    hint: 'LAB_SEAT=07 lab …',
    exitCode: exitCodes.usage,
  })
}

/** The environment for a child process that works at the seat of this lab. */
export const atSeatOf = ({ seat }: LabId): NodeJS.ProcessEnv => ({ ...process.env, LAB_SEAT: seat ?? '' })

/** The lab of this name at the seat of this process. */
export const labHere = (name: string): LabId => {
  const seat = seatHere()
  return seat === undefined ? { name } : { name, seat }
}

/**
 * The lab's starting point in a resource that labs use in turn, such as processors: a stable number. Numbered seats
 * get consecutive numbers, so that they spread evenly.
 */
export const turnOf = ({ name, seat }: LabId, step: number): number => {
  const bytes = (text: string): number => Buffer.from(text).reduce((sum, byte) => sum + byte, 0)
  if (seat === undefined) return bytes(name)
  return bytes(name) + step * (/^\d+$/.test(seat) ? Number(seat) : bytes(seat))
}
