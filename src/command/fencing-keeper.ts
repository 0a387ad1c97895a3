/** The keeper of the fencing agent: see fencing/process.ts. */
import { exitCodes, type ExitCode } from '../error.js'
import { labHere } from '../identity.js'
import { keepAgent } from '../fencing/process.js'
import { type Io, type Verb } from '../command-line/verb.js'

const run = async (name: string, _options: object, io: Io): Promise<ExitCode> => {
  await keepAgent(labHere(name), io.signal)
  return exitCodes.ok
}

export const verb: Verb = { run }
