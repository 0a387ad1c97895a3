import { maskKnown } from '../view/secrets.js'
import type { Io } from './verb.js'

/**
 * JSON for programs, on standard output.
 * @param mask applied to every text in the data; by default it masks every known secret
 */
export const printJson = (
  io: Pick<Io, 'stdout'>,
  schema: string,
  data: object,
  mask: (text: string) => string = maskKnown,
): void => {
  const masked = (_: string, value: unknown): unknown => (typeof value === 'string' ? mask(value) : value)
  io.stdout.write(`${JSON.stringify({ schema, ...data }, masked, 2)}\n`)
}
