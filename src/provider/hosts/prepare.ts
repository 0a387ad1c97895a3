/** The parts that equipped machines get from this computer. */
import { imagesOf, imagesUsedOn } from '../../lab/images.js'
import { type Lab, nodesOf } from '../../lab/lab.js'
import { type Architecture, hostArchitecture } from '../../parts/architecture.js'
import { needHostPackages } from '../../parts/host.js'
import { nodesPrepared, prepareNodes } from '../../parts/nodes.js'
import type { Preparation } from '../../parts/preparation.js'
import { type KeptHosts, keptHosts } from './lab-record.js'

/** The images of the lab's nodes with another kind of processor than this computer, by that kind. */
export const foreignImages = (
  lab: Lab,
  kept: Pick<KeptHosts, 'machines'> | undefined,
): ReadonlyMap<Architecture, readonly string[]> => {
  const images = new Map<Architecture, readonly string[]>()
  for (const node of nodesOf(lab)) {
    const architecture = kept?.machines.find(({ name }) => name === node.name)?.architecture
    if (architecture === undefined || architecture === hostArchitecture()) continue
    images.set(architecture, [...new Set([...(images.get(architecture) ?? []), ...imagesUsedOn(lab, node)])])
  }
  return images
}

/** Builds what is missing. A computer that has all of it, for example from a bundle, needs no program for building. */
export const prepareEquipment = async (lab: Lab, preparation: Preparation): Promise<void> => {
  if (!lab.kubernetes) return
  const images = imagesOf(lab)
  const foreign = [...foreignImages(lab, await keptHosts(lab))]
  const isThere = nodesPrepared(images) && foreign.every(([kind, used]) => nodesPrepared(used, kind))
  if (!isThere) await needHostPackages(preparation)
  // This computer's own are always needed: kubectl, and the control plane's images.
  await prepareNodes(images, preparation)
  for (const [architecture, used] of foreign) await prepareNodes(used, preparation, architecture)
}
