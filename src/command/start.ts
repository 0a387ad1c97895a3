import { type ExitCode } from '../error.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { refuseNotUp } from '../lifecycle/provider-in-use.js'
import { pathsOf } from '../state.js'
import { up } from './up.js'
import { asJson, type Io, type Options, type Verb, withEvents, withWait } from '../command-line/verb.js'

/** Starts a stopped lab as it was last brought up; later edits of its file take effect with `up`. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  await refuseNotUp(lab)
  return up(pathsOf(lab).source, options, io, 'start')
}

export const verb: Verb = {
  options: [asJson, withEvents, withWait],
  run,
}
