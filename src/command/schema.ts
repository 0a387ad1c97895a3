import { exitCodes, type ExitCode } from '../error.js'
import { jsonSchema } from '../registry.js'
import { type Io, type Options, type Verb } from '../command-line/verb.js'

const run = (_options: Options, io: Io): ExitCode => {
  io.stdout.write(`${JSON.stringify(jsonSchema(), null, 2)}\n`)
  return exitCodes.ok
}

export const verb: Verb = {
  run,
}
