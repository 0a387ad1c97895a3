/** The fencing agent, which its keeper starts: see fencing/process.ts. */
import { Option } from 'commander'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { labHere } from '../identity.js'
import { runAgent, startKeeper } from '../fencing/process.js'
import { pathsOf } from '../state.js'
import { eventFile } from '../view/event-file.js'
import { maskKnown } from '../view/secrets.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { sessionFor } from '../command-line/with-lab.js'
import { type Io, type Verb } from '../command-line/verb.js'

const run = async (name: string, _options: object, io: Io): Promise<ExitCode> => {
  const orphaned = io.orphaned()
  const lab = await loadRunning(name)
  const { fencing } = lab
  if (fencing === 'none')
    throw new LabError('no-fencing', `${lab.name} has fencing: none`, { exitCode: exitCodes.usage })
  const ending = AbortSignal.any([io.signal, orphaned])
  const session = await sessionFor(lab, await providerOf(lab), ending)
  try {
    const kept = eventFile(pathsOf(lab).events)
    const say = (text: string): void => {
      kept.take({ type: 'notice', text: `fencing agent: ${maskKnown(text)}` })
      io.stderr.write(`${new Date().toISOString()} ${maskKnown(text)}\n`)
    }
    await runAgent(session, fencing, say, ending)
  } finally {
    // First: an agent that does not come to its end must not be the last one.
    if (orphaned.aborted && !io.signal.aborted) startKeeper(labHere(name))
    await session.close()
  }
  return exitCodes.ok
}

export const verb: Verb = {
  // Keepers of earlier versions, which may still be running, give this word.
  options: [new Option('--watch')],
  run,
}
