import { type ExitCode } from '../error.js'
import { loadRunning } from './kept-lab.js'
import { providerOf } from './provider-in-use.js'
import { pathsOf } from '../state.js'
import { bringUp } from './bring-up.js'
import { asJson, type Io, type Options, type Verb, withEvents, withWait } from './verb.js'

/** Starts a stopped lab as it was last brought up; later edits of its file take effect with `up`. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  await providerOf(lab)
  return bringUp(pathsOf(lab).source, options, io, 'start')
}

export const verb: Verb = {
  options: [asJson, withEvents, withWait],
  run,
}
