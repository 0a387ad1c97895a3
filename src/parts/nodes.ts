/** What machines get that are not of lab's own base disk: programs and images, for their architecture. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Architecture, hostArchitecture } from './architecture.js'
import { machineParts } from './base-disk.js'
import { canBuildFor } from './catalog.js'
import { foreignPart } from './cross-build.js'
import { build, keyOf, type Known, known, knownForeign } from './parts.js'
import { imagePart, pins } from './pins.js'
import type { Preparation } from './preparation.js'

const isOwn = (architecture: Architecture | undefined): boolean =>
  architecture === undefined || architecture === hostArchitecture()

/** The parts for one architecture, and the id that a part has among them. */
const partsFor = (
  architecture: Architecture | undefined,
  images: readonly string[],
): { readonly from: Known; readonly idOf: (id: string) => string } =>
  architecture === undefined || isOwn(architecture)
    ? { from: known(images), idOf: (id) => id }
    : { from: knownForeign(architecture, images), idOf: (id) => foreignPart(id, architecture) }

/**
 * Why the programs or images of such a node cannot be built on this computer; undefined: they can.
 * @param references of the images that it runs
 */
export const whyNotFor = (architecture: Architecture, references: readonly string[]): string | undefined => {
  if (isOwn(architecture)) return undefined
  if (!canBuildFor(pins(), architecture))
    return `this computer builds the parts of Kubernetes only for ${hostArchitecture() ?? process.arch}`
  // parts/fetcher/python.sh fetches compiled packages, for amd64.
  const image = pins().images.find(
    (pin) =>
      references.includes(pin.reference) &&
      pin.kind === 'debian' &&
      pin.with.some((part) => part.startsWith('python-')),
  )
  return image && `the image ${image.reference} is built only for amd64`
}

/**
 * The archive of an optional image, once such a lab was prepared; undefined if it is not built.
 * @param architecture of the machine that runs it; default: this host's
 */
export const imageArchive = (reference: string, architecture?: Architecture): string | undefined => {
  const { from, idOf } = partsFor(architecture, [reference])
  const pin = pins().images.find((candidate) => candidate.reference === reference)
  const key = pin && keyOf(from, idOf(imagePart(pin.name)))
  return key !== undefined && from.cache.has(key) ? join(from.cache.path(key), 'image.tar') : undefined
}

/**
 * The programs of a Kubernetes node, and where a node has them.
 * @param architecture of the node; default: this host's
 */
export const nodePrograms = (
  architecture?: Architecture,
): readonly { readonly from: string; readonly to: string }[] => {
  const { from, idOf } = partsFor(architecture, [])
  const { programs, plugins } = machineParts(pins().images)
  const place = (part: string, folder: string) => (name: string) => ({
    from: join(from.cache.path(keyOf(from, idOf(part))), name),
    to: `${folder}/${name}`,
  })
  return [
    ...Object.entries(programs).flatMap(([part, names]) => names.map(place(part, '/usr/bin'))),
    ...plugins.map(place('cni-plugins', '/opt/cni/bin')),
  ]
}

/**
 * The images that are built for nodes: all nodes of this host's kind share those that every lab has; each image for
 * another architecture takes minutes, so only those that are named are built.
 */
const imagesOfNodes = (references: readonly string[], architecture?: Architecture) =>
  pins().images.filter(
    ({ reference, optional }) => references.includes(reference) || (!optional && isOwn(architecture)),
  )

/** Whether all of that is there, and the images that nodes get. */
export const nodesPrepared = (references: readonly string[], architecture?: Architecture): boolean =>
  nodePrograms(architecture).every(({ from }) => existsSync(from)) &&
  imagesOfNodes(references, architecture).every(
    ({ reference }) => imageArchive(reference, architecture) !== undefined,
  )

/**
 * Builds what is missing of that, and of the images that nodes get.
 * @throws the errors of `prepareParts`
 */
export const prepareNodes = async (
  references: readonly string[],
  preparation: Preparation,
  architecture?: Architecture,
): Promise<void> => {
  const { programs } = machineParts(pins().images)
  const images = imagesOfNodes(references, architecture)
  const { idOf } = partsFor(architecture, references)
  await build(
    () => partsFor(architecture, references).from,
    [...Object.keys(programs), 'cni-plugins', ...images.map(({ name }) => imagePart(name))].map(idOf),
    preparation,
  )
}
