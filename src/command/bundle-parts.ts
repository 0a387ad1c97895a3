/** Takes what a lab lacks from a bundle, before anything is built. */
import { openPartsCache } from '../parts/parts.js'
import { trustMaker } from '../bundle/makers.js'
import { openBundle, sourceOf } from '../bundle/source.js'
import { takeParts } from '../bundle/take.js'
import type { BundlePart } from '../bundle/manifest.js'
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import type { Preparation } from '../parts/preparation.js'
import type { Provider } from '../provider/provider.js'
import { version } from '../version.js'
import type { Io, Options } from './verb.js'

interface Offered {
  readonly parts: readonly BundlePart[]
  readonly version: string
  take(wanted: readonly BundlePart[], preparation: Preparation): Promise<void>
}

const open = async (where: string, options: Options, io: Io): Promise<Offered> => {
  const source = await sourceOf(where)
  const { manifest, fingerprint } = await openBundle(source, io.signal)
  await trustMaker(fingerprint, source.name, { given: options.maker, ask: io.ask })
  return {
    parts: manifest.parts,
    version: manifest.version,
    take: async (wanted, preparation) => {
      await takeParts(source, wanted, await openPartsCache(), preparation)
    },
  }
}

/**
 * Asks nobody where nothing is missing. What the bundle lacks is left to be built.
 * @throws LabError `offline-missing` with everything that is nowhere to be had, before anything is taken; and what
 *   reading a bundle throws
 */
export const takeFromBundle = async (
  lab: Lab,
  provider: Provider,
  options: Options,
  io: Io,
  preparation: Preparation,
): Promise<void> => {
  if (!provider.machines?.parts) {
    preparation.notice(`${provider.name} makes its machines of other parts than a bundle has`)
    if (options.offline)
      throw new LabError('offline-missing', `${provider.name} cannot say what it would have to fetch`, {
        hint: `lab up ${lab.name} --provider uml --offline`,
        exitCode: exitCodes.host,
      })
    return
  }
  const missing = provider.machines.parts(lab).filter(({ there }) => !there)
  if (missing.length === 0) return
  const offered = options.from === undefined ? undefined : await open(options.from, options, io)
  const found = missing.flatMap(({ key }) => offered?.parts.find((part) => part.key === key) ?? [])
  const nowhere = missing.filter(({ key }) => !found.some((part) => part.key === key))
  if (options.offline && nowhere.length > 0)
    throw new LabError(
      'offline-missing',
      [
        `${lab.name}: these parts are neither here nor ${options.from === undefined ? 'in a bundle' : `in ${options.from}`}:`,
        ...nowhere.map(({ key, title }) => `  ${title} (${key})`),
        ...(offered ? [`The bundle was made by lab ${offered.version}, this is lab ${version}.`] : []),
      ].join('\n'),
      {
        hint: `with this very lab, where there is a network: lab bundle make ${lab.name} --into FOLDER; then here: lab up ${lab.name} --offline --from FOLDER`,
        exitCode: exitCodes.host,
      },
    )
  if (nowhere.length > 0)
    preparation.notice(
      `${options.from ?? ''} does not have ${nowhere.map(({ title }) => title).join(', ')}: built here. It was made by lab ${offered?.version ?? ''}, this is lab ${version}`,
    )
  await offered?.take(found, preparation)
}
