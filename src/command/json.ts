import type { Io } from './verb.js'

/** JSON for programs, on standard output. */
export const printJson = (io: Io, schema: string, data: object): void => {
  io.stdout.write(`${JSON.stringify({ schema, ...data }, null, 2)}\n`)
}
