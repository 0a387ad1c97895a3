import { type ExitCode } from '../error.js'
import { readJournal } from '../journal.js'
import { pathsOf } from '../state.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { refuseNotUp } from '../lifecycle/provider-in-use.js'
import { up } from './up.js'
import { asJson, type Io, type Options, type Verb, withEvents, withWait } from '../command-line/verb.js'

/** `up` first undoes what a run has left, and then restores the lab to its last applied state. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  await refuseNotUp(lab)
  const open = await readJournal(lab)
  if (open.length === 0 && options.output !== 'json' && !options.events)
    io.stdout.write(`${lab.name}: there is no fault to undo\n`)
  return up(pathsOf(lab).source, options, io, 'heal')
}

export const verb: Verb = {
  options: [asJson, withEvents, withWait],
  run,
}
