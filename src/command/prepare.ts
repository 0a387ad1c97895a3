import { Option } from 'commander'
import { exitCodes, type ExitCode } from '../error.js'
import { allProviders, chooseProvider } from '../provider/load.js'
import { loadLab } from '../lifecycle/load-lab.js'
import { preparationOf, withLab } from '../command-line/with-lab.js'
import { prepareParts } from '../lifecycle/parts.js'
import {
  type Io,
  type Options,
  type Verb,
  withEvents,
  withProvider,
  withSource,
  withWait,
} from '../command-line/verb.js'

/** Does the slow part in advance: for a workshop, a flight or CI. */
const run = async (
  nameOrPath: string,
  options: Options & { readonly prune?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadLab(nameOrPath)
  return withLab(lab, { io, options, lock: 'prepare', keepEvents: false }, async ({ view }) => {
    const provider = await chooseProvider(options.provider, lab, io.signal)
    await prepareParts(lab, provider, { ...options, ask: io.ask }, preparationOf(io, view))
    await view.close()
    if (options.prune) {
      const { pruneParts } = await import('../parts/parts.js')
      const using = (await allProviders()).map(async ({ machines }) => (await machines?.partsInUse?.()) ?? [])
      const keep = (await Promise.all(using)).flat()
      for (const { path } of await pruneParts({ keep })) io.stdout.write(`removed ${path}\n`)
    }
    if (!options.events) io.stdout.write(`Every part of ${lab.name} is prepared. Next: lab up ${lab.name}\n`)
    return exitCodes.ok
  })
}

export const verb: Verb = {
  defaults: { lab: 'iscsi-ha' },
  options: [
    withProvider,
    withEvents,
    withWait,
    ...withSource,
    new Option('--prune', 'then remove what earlier versions of lab built'),
  ],
  run,
}
