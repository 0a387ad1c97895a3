/** Which lab is meant: by its name, and by the seat where several labs of one name share a host. */
import { exitCodes, LabError } from './error.js'

/** Everything that a host has of a lab is named after this: its folder, locks, networks, machines, processor. */
export interface LabId {
  readonly name: string
  /** Lower-case letters, digits and dashes. Undefined: the lab is the only one of its name here. */
  readonly seat?: string | undefined
}

/** A word that no other lab of this host has. Neither names nor seats contain `@`. */
export const wordOf = ({ name, seat }: LabId): string => (seat === undefined ? name : `${name}@${seat}`)

/** The lab that such a word names; undefined: it is no such word. */
export const labOf = (word: string): LabId | undefined => {
  const [, name, seat] = /^([a-z0-9-]+)(?:@([a-z0-9-]+))?$/.exec(word) ?? []
  if (name === undefined) return undefined
  return seat === undefined ? { name } : { name, seat }
}

/** The seat that this process works at, from LAB_SEAT; undefined: none. @throws LabError for a bad one */
export const seatHere = (): string | undefined => {
  const seat = process.env['LAB_SEAT']
  if (seat === undefined || seat === '') return undefined
  // 16: the folder of a lab holds Unix sockets, whose paths are short.
  if (/^[a-z0-9-]{1,16}$/.test(seat)) return seat
  throw new LabError('bad-seat', `LAB_SEAT=${seat}: a seat has up to 16 of a-z, 0-9 and -`, {
    hint: 'LAB_SEAT=07 lab …',
    exitCode: exitCodes.usage,
  })
}

/** The environment for a process of ours that is to work at the seat of this lab. */
export const atSeatOf = ({ seat }: LabId): NodeJS.ProcessEnv => ({ ...process.env, LAB_SEAT: seat ?? '' })

/** The lab of this name at this process's seat. */
export const labHere = (name: string): LabId => {
  const seat = seatHere()
  return seat === undefined ? { name } : { name, seat }
}

/**
 * Where a lab begins among things of which all labs take some in turn, as processors: any number, the same each time.
 * Seats with numbers follow one another, a step for each, so that they spread evenly.
 */
export const turnOf = ({ name, seat }: LabId, step: number): number => {
  const bytes = (text: string): number => Buffer.from(text).reduce((sum, byte) => sum + byte, 0)
  if (seat === undefined) return bytes(name)
  return bytes(name) + step * (/^\d+$/.test(seat) ? Number(seat) : bytes(seat))
}
