import { Option } from 'commander'
import { exitCodes, type ExitCode } from '../error.js'
import { describe, sizeOf } from '../snapshot/snapshot.js'
import { takeSnapshot } from '../snapshot/take.js'
import { printJson } from '../command-line/json.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { asJson, type Io, type Options, type Verb, withWait } from '../command-line/verb.js'
import { withLab } from '../command-line/with-lab.js'

/** A copy of a whole lab at one moment. A running lab is paused meanwhile. */
const run = async (
  nameOrPath: string,
  name: string,
  options: Options & { readonly replace?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  return withLab(lab, { io, options, lock: 'snapshot', keepEvents: true }, async ({ view, open }) => {
    const session = await open(lab, await providerOf(lab))
    const snapshot = await takeSnapshot(session, name, { replace: options.replace ?? false })
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.snapshot/v1', snapshot)
    else
      io.stdout.write(
        `${lab.name}: ${name} is kept (${sizeOf(snapshot)}, ${describe(snapshot)}). To go back: lab restore ${lab.name} ${name}\n`,
      )
    return exitCodes.ok
  })
}

export const verb: Verb = {
  words: { name: 'up to 32 of a-z, 0-9 and -' },
  options: [new Option('--replace', 'replace a snapshot of the same name'), asJson, withWait],
  run,
}
