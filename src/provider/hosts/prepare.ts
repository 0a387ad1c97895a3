/** The parts that equipped machines get from this computer. */
import { imagesOf } from '../../lab/images.js'
import type { Lab } from '../../lab/lab.js'
import { needHostPackages } from '../../parts/host.js'
import { nodesPrepared, prepareNodes } from '../../parts/parts.js'
import type { Preparation } from '../../parts/preparation.js'

/** Builds what is missing. A computer that has all of it, for example from a bundle, needs no program for building. */
export const prepareEquipment = async (lab: Lab, preparation: Preparation): Promise<void> => {
  if (!lab.kubernetes) return
  const images = imagesOf(lab)
  if (!nodesPrepared(images)) await needHostPackages(preparation)
  await prepareNodes(images, preparation)
}
