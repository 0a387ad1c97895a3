/** All parts of User-Mode Linux machines and boxes, made only from Debian packages and Go modules. */
import { LabError } from '../error.js'
import { type Architecture, hostArchitecture, isForeign } from './architecture.js'
import { baseDisk } from './base-disk.js'
import { boxParts } from './box.js'
import { builder, fetcher, registryClientPart, system } from './debian.js'
import { jars, python } from './fetched.js'
import { cross, emulated, renamed } from './cross-build.js'
import { type GoPart, goPart, kubernetesVersion, pause } from './go-programs.js'
import { image } from './images.js'
import { kernel } from './kernel.js'
import type { Part } from './part.js'
import type { ImagePin, Pins } from './pins.js'
import type { Substitutes } from './substitutes.js'

/** Parts of the machines of every provider. Each part is listed after its inputs. */
const machinesParts = (
  pins: Pins,
  cacheRoot: string,
  images: readonly ImagePin[],
  architecture: Architecture,
): readonly Part[] => {
  const go = (part: GoPart): Part => goPart(pins, cacheRoot, architecture, part)
  const imageParts = images.map((pin) => image(pins, pin, architecture))
  // Only the inputs of the chosen images, so that nobody waits for others.
  const forImages: Part[] = []
  for (const part of [
    jars(pins, 'jars-cassandra', 'the jars of Cassandra', 'cassandra'),
    python(pins, 'python-cassandra', 'cqlsh', 'cassandra'),
    jars(pins, 'jars-kubernetes-zookeeper', 'the jars of ZooKeeper', 'kubernetes-zookeeper'),
    go({ id: 'local-path-provisioner', title: 'local-path-provisioner' }),
    fetcher(pins),
  ])
    if ([...imageParts, ...forImages].some(({ needs }) => needs.includes(part.id))) forImages.unshift(part)
  return [
    system(pins, architecture),
    go({
      id: 'kubernetes',
      title: 'Kubernetes',
      linkerFlags: kubernetesVersion(pins.modules['kubernetes']?.version ?? ''),
    }),
    go({ id: 'containerd', title: 'containerd' }),
    go({ id: 'coredns', title: 'CoreDNS', packages: '.' }),
    go({ id: 'etcd', title: 'etcd' }),
    go({ id: 'cni-plugins', title: 'CNI plugins' }),
    ...forImages,
    pause(pins, cacheRoot, architecture),
    ...imageParts,
  ]
}

/**
 * All parts for this host's own architecture. Each part is listed after its inputs.
 * @param extraImages references of optional images for the base disk
 * @param taken replacements for pins that Debian has withdrawn
 * @throws LabError `no-image` for an image that parts.yaml does not have
 */
export const catalog = (
  pins: Pins,
  cacheRoot: string,
  extraImages: readonly string[] = [],
  taken: Pick<Substitutes, 'kernel'> = {},
): readonly Part[] => {
  for (const name of extraImages)
    if (!pins.images.some(({ reference }) => reference === name))
      throw new LabError('no-image', `there is no image ${name} in parts/parts.yaml`, {
        hint: `it has ${pins.images.map(({ reference }) => reference).join(', ')}`,
      })
  const images = pins.images.filter((pin) => !pin.optional || extraImages.includes(pin.reference))
  const architecture = hostArchitecture()
  return [
    builder(pins),
    registryClientPart(pins),
    kernel(pins, taken.kernel ?? pins.kernel.source),
    ...machinesParts(pins, cacheRoot, images, architecture ?? 'amd64'),
    baseDisk(pins, images),
    ...(architecture === undefined ? [] : boxParts(pins, images, architecture)),
  ]
}

/** Whether this host can build boxes for an architecture. */
export const canBuildFor = (pins: Pins, architecture: Architecture): boolean =>
  !isForeign([architecture]) || (hostArchitecture() === 'amd64' && pins.cross[architecture] !== undefined)

/**
 * The parts of nodes and boxes for an architecture other than this host's. Their ids end with its name.
 * @param extraImages references of optional images
 */
export const foreignCatalog = (
  pins: Pins,
  cacheRoot: string,
  architecture: Architecture,
  extraImages: readonly string[] = [],
): readonly Part[] => {
  const images = pins.images.filter(({ optional, reference }) => !optional || extraImages.includes(reference))
  const parts = [
    cross(pins, architecture),
    ...machinesParts(pins, cacheRoot, images, architecture),
    ...boxParts(pins, images, architecture),
  ]
  // Their builds run programs of the system that they make.
  const runsThem = ({ id }: Part): boolean => /^(system|image-.*|box-system|box-disk)$/.test(id)
  return [
    builder(pins),
    registryClientPart(pins),
    ...renamed(
      parts.map((part) => (runsThem(part) ? emulated(part, pins, architecture) : part)),
      architecture,
    ),
  ]
}
