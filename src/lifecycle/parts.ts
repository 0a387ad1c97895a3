/** The parts of a lab's machines: missing ones are taken from a bundle, if there is one, or else built. */
import { openPartsCache } from '../parts/parts.js'
import { trustMaker } from '../bundle/makers.js'
import { openBundle, sourceOf } from '../bundle/source.js'
import { takeParts } from '../bundle/take.js'
import type { BundlePart } from '../bundle/manifest.js'
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import type { Preparation } from '../parts/preparation.js'
import type { Provider } from '../provider/provider.js'
import { version } from '../package.js'

/** Where parts come from. */
export interface PartsSource {
  /** A bundle, as a folder or URL, from which parts are taken before any are built. */
  readonly from?: string | undefined
  /** The fingerprint of its maker. */
  readonly maker?: string | undefined
  /** Nothing is built or fetched from elsewhere. */
  readonly offline?: boolean | undefined
  /** Asks whether to trust a new maker; undefined if there is no terminal. */
  readonly ask?: ((question: string) => Promise<boolean>) | undefined
}

interface Offered {
  readonly parts: readonly BundlePart[]
  readonly version: string
  take(wanted: readonly BundlePart[], preparation: Preparation): Promise<void>
}

const open = async (where: string, { maker, ask }: PartsSource, signal: AbortSignal): Promise<Offered> => {
  const source = await sourceOf(where)
  const { manifest, fingerprint } = await openBundle(source, signal)
  await trustMaker(fingerprint, source.name, { given: maker, ask })
  return {
    parts: manifest.parts,
    version: manifest.version,
    take: async (wanted, preparation) => {
      await takeParts(source, wanted, await openPartsCache(), preparation)
    },
  }
}

/**
 * Does not contact the source if nothing is missing. Parts that the bundle lacks are built later.
 * @throws LabError `bad-source`; `offline-missing` with everything that is available nowhere, before anything is taken; and errors
 * of reading a bundle
 */
const takeFromBundle = async (
  lab: Lab,
  provider: Provider,
  source: PartsSource,
  preparation: Preparation,
): Promise<void> => {
  if (!provider.machines?.parts) {
    preparation.notice(`${provider.name} makes its machines from other parts than those in a bundle`)
    if (source.offline)
      throw new LabError('offline-missing', `${provider.name} cannot tell what it would have to download`, {
        hint: `lab up ${lab.name} --provider uml --offline`,
        exitCode: exitCodes.host,
      })
    return
  }
  const missing = (await provider.machines.parts(lab)).filter(({ there }) => !there)
  if (missing.length === 0) {
    // A typing error is named, but LAB_PARTS may name a stick that was needed only the first time.
    if (source.from !== undefined && source.from !== process.env['LAB_PARTS']) await sourceOf(source.from)
    return
  }
  const offered = source.from === undefined ? undefined : await open(source.from, source, preparation.signal)
  const found = missing.flatMap(({ key }) => offered?.parts.find((part) => part.key === key) ?? [])
  const nowhere = missing.filter(({ key }) => !found.some((part) => part.key === key))
  if (source.offline && nowhere.length > 0)
    throw new LabError(
      'offline-missing',
      [
        `${lab.name}: these parts are neither here nor ${source.from === undefined ? 'in a bundle' : `in ${source.from}`}:`,
        ...nowhere.map(({ key, title }) => `  ${title} (${key})`),
        ...(offered ? [`The bundle was made by lab ${offered.version}; this is lab ${version}.`] : []),
      ].join('\n'),
      {
        hint: `use this same version of lab on a computer with a network: lab bundle make ${lab.name} --into FOLDER; then here: lab up ${lab.name} --offline --from FOLDER`,
        exitCode: exitCodes.host,
      },
    )
  if (nowhere.length > 0)
    preparation.notice(
      `${source.from ?? ''} does not have ${nowhere.map(({ title }) => title).join(', ')}, so lab builds it here. The bundle was made by lab ${offered?.version ?? ''}; this is lab ${version}`,
    )
  await offered?.take(found, preparation)
}

/** Makes every part that the lab lacks. When it returns, the lab's machines can be made. */
export const prepareParts = async (
  lab: Lab,
  provider: Provider,
  source: PartsSource,
  preparation: Preparation,
): Promise<void> => {
  if (source.from !== undefined || source.offline) await takeFromBundle(lab, provider, source, preparation)
  await provider.prepare(lab, preparation)
}
