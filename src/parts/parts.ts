import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import { quote } from '../machine/sh.js'
import type { Preparation } from './preparation.js'
import { Cache, cacheRoot, openCache, type OldPart } from './cache.js'
import { type Architecture, architectures, hostArchitecture } from './architecture.js'
import { type BoxMetadata, type BoxProvider, boxFiles, boxPart, boxVersionOf } from './box.js'
import { foreignPart } from './cross-build.js'
import { canBuildFor, catalog, foreignCatalog } from './catalog.js'
import { buildParts, hashesOf, missingParts } from './graph.js'
import type { Part } from './part.js'
import { imagePart, pins } from './pins.js'
import { removeTree } from './sandbox.js'
import { partsInUse } from './uses.js'
import { findSubstitutes, rememberedSubstitutes, type Substitutes, withGo } from './substitutes.js'

export { cacheRoot, noexecMountOf } from './cache.js'
export { forgetUse, noteUse } from './uses.js'
export { type Architecture, hostArchitecture } from './architecture.js'
export { boxName } from './box.js'
export { trialBoot, trialEnd } from './kernel.js'

/** The files of a machine, as absolute paths of existing files. */
export interface PreparedParts {
  /** A User-Mode Linux kernel, one static program. */
  readonly kernel: string
  /** A sparse ext4 image; machines write to a copy-on-write file of their own. */
  readonly baseDisk: string
  /** For the host: they are static programs too. */
  readonly kubectl: string
  readonly kubeadm: string
  /** Identifies the base disk by all its inputs, as in /etc/lab/base-release on a machine. */
  readonly release: string
}

export interface PartsOptions {
  /** References of optional images of parts.yaml for the base disk, in addition to the usual ones. */
  readonly images?: readonly string[]
}

/** The parts that users ask for; all others are intermediate. */
const targets = ['kernel', 'kubernetes', 'base-disk'] as const

export interface Known {
  readonly parts: readonly Part[]
  readonly hashes: ReadonlyMap<string, string>
  readonly cache: Cache
}

const memory = new Map<string, Known>()

/** Remembered, since hashing reads a hundred small files, which do not change while the program runs. */
const remembered = (key: string, partsIn: (root: string) => readonly Part[]): Known => {
  const root = cacheRoot()
  let found = memory.get(`${root} ${key}`)
  if (!found) {
    const parts = partsIn(root)
    found = { parts, hashes: hashesOf(parts), cache: new Cache(root) }
    memory.set(`${root} ${key}`, found)
  }
  return found
}

/** The substitutes for withdrawn pins; they are used only if nothing was built from the pinned versions. */
const inForce = (root: string): Substitutes => {
  const { kernel, go } = rememberedSubstitutes(pins(), root)
  if (!kernel && go === undefined) return {}
  const pinned = remembered('pinned', (folder) => catalog(pins(), folder))
  const isThere = (id: string): boolean => pinned.cache.has(keyOf(pinned, id))
  return {
    ...(kernel && !isThere('kernel') && { kernel }),
    ...(go !== undefined && !isThere('builder') && { go }),
  }
}

/** The parts for this host's own architecture. */
export const known = (images: readonly string[] = []): Known => {
  const substitutes = inForce(cacheRoot())
  return remembered(JSON.stringify([[...images].sort(), substitutes]), (root) =>
    catalog(withGo(pins(), substitutes.go), root, images, substitutes),
  )
}

/**
 * Builds what is missing of `wanted`. If the kernel or the compilers are missing, it first finds out whether Debian
 * still has the pinned versions, and which substitutes to take.
 * @param know the parts as they are known when it is called
 */
export const build = async <T extends Known>(
  know: () => T,
  wanted: readonly string[],
  preparation: Preparation,
): Promise<T> => {
  let from = know()
  await refuseCachePath(from.cache.root)
  const isThere = ({ id }: Pick<Part, 'id'>): boolean => from.cache.has(keyOf(from, id))
  const missing = missingParts(from.parts, wanted, { isThere }).map(({ id }) => id)
  // A builder made by an earlier version of this program contains the kernel's source.
  const { archive } = pins().kernel.source
  const hasSource = existsSync(join(from.cache.path(keyOf(from, 'builder')), 'root', archive))
  const asked = { kernel: missing.includes('kernel') && !hasSource, go: missing.includes('builder') }
  if (asked.kernel || asked.go) {
    await findSubstitutes(pins(), from.cache.root, asked, preparation)
    from = know()
  }
  await buildParts(from.parts, wanted, from.cache, preparation)
  return from
}

/** The parts for another architecture. */
export const knownForeign = (architecture: Architecture, images: readonly string[] = []): Known => {
  const { go } = inForce(cacheRoot())
  return remembered(JSON.stringify([architecture, go, [...images].sort()]), (root) =>
    foreignCatalog(withGo(pins(), go), root, architecture, images),
  )
}

export const keyOf = ({ hashes }: Known, id: string): string => `${id}-${hashes.get(id) ?? ''}`

const resultOf = (from: Known): PreparedParts => {
  const path = (id: string, file: string): string => join(from.cache.path(keyOf(from, id)), file)
  return {
    kernel: path('kernel', 'linux'),
    baseDisk: path('base-disk', 'disk.ext4'),
    kubectl: path('kubernetes', 'kubectl'),
    kubeadm: path('kubernetes', 'kubeadm'),
    release: from.hashes.get('base-disk') ?? '',
  }
}

/**
 * The folder of a part is complete when it is made, so a file that is missing or empty was damaged later.
 * @throws LabError `broken-part`
 */
const refuseBroken = async ({ kernel, baseDisk, kubectl, kubeadm }: PreparedParts): Promise<void> => {
  for (const path of [kernel, baseDisk, kubectl, kubeadm]) {
    const { size } = await stat(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { size: 0 }
      throw error
    })
    if (size === 0)
      throw new LabError('broken-part', `${path} is missing or empty, although its part was made`, {
        hint: `rm -r ${quote(dirname(path))} && lab prepare`,
        exitCode: exitCodes.host,
      })
  }
}

/**
 * The paths of all parts if every one exists. Asks only the file system, and takes milliseconds.
 * @throws LabError `broken-part` if one lacks its file
 */
export const preparedParts = async (
  options: PartsOptions = {},
): Promise<PreparedParts | { readonly missing: readonly string[] }> => {
  const from = known(options.images)
  const missing = targets.filter((id) => !from.cache.has(keyOf(from, id)))
  if (missing.length > 0) return { missing }
  const parts = resultOf(from)
  await refuseBroken(parts)
  return parts
}

/** A part that machines are made of. */
export interface NeededPart {
  /** Its name, and the hash of what it is made from. */
  readonly key: string
  readonly title: string
  /** Its folder, whether or not it is there. */
  readonly path: string
  readonly there: boolean
}

/** Everything that `prepareParts` makes, without intermediate parts. */
export const neededParts = (options: PartsOptions = {}): readonly NeededPart[] => {
  const from = known(options.images)
  return targets.map((id) => {
    const key = keyOf(from, id)
    const title = from.parts.find((part) => part.id === id)?.title ?? id
    return { key, title, path: from.cache.path(key), there: from.cache.has(key) }
  })
}

/** What is known of a Vagrant box without building it. */
export interface Box {
  readonly version: string
  readonly architecture: Architecture
  /** Absolute paths, which exist if `built` is true. */
  readonly box: string
  readonly metadata: string
  readonly built: boolean
}

/** The part of a box, among those of its architecture. */
const knownBox = (provider: BoxProvider, architecture: Architecture): Known & { readonly part: string } =>
  architecture === hostArchitecture()
    ? { ...known(), part: boxPart(provider) }
    : { ...knownForeign(architecture), part: foreignPart(boxPart(provider), architecture) }

/**
 * Asks only the file system.
 * @param wanted the machines' architecture; default: this host's
 * @throws LabError `no-box-here` for an architecture that cannot be built here
 */
export const boxOf = (provider: BoxProvider, wanted?: Architecture): Box => {
  const architecture = wanted ?? hostArchitecture()
  if (architecture === undefined || !canBuildFor(pins(), architecture))
    throw new LabError(
      'no-box-here',
      `a box for ${architecture ?? process.arch} cannot be built on this computer, which is ${hostArchitecture() ?? process.arch}`,
      {
        hint: `on one that is ${architecture ?? 'amd64 or arm64'}: lab box build --provider ${provider}; then copy its two files here`,
        exitCode: exitCodes.host,
      },
    )
  const from = knownBox(provider, architecture)
  const key = keyOf(from, from.part)
  return {
    version: boxVersionOf(pins().modules['kubernetes']?.version ?? '', from.hashes.get(from.part) ?? ''),
    architecture,
    box: join(from.cache.path(key), boxFiles.box),
    metadata: join(from.cache.path(key), boxFiles.metadata),
    built: from.cache.has(key),
  }
}

/** Builds the host's kubectl if it is missing. */
export const prepareKubectl = async (preparation: Preparation): Promise<void> => {
  await build(() => known(), ['kubernetes'], preparation)
}

/**
 * Builds what is missing of a box: after `prepareParts` about three minutes on two cores, for another architecture
 * half an hour.
 * @throws the errors of `prepareParts` and `boxOf`
 */
export const prepareBox = async (
  provider: BoxProvider,
  preparation: Preparation,
  wanted?: Architecture,
): Promise<Box & { readonly checksum: string }> => {
  const { architecture } = boxOf(provider, wanted)
  await build(() => knownBox(provider, architecture), [knownBox(provider, architecture).part], preparation)
  const built = boxOf(provider, architecture)
  const { versions } = JSON.parse(await readFile(built.metadata, 'utf8')) as BoxMetadata
  return { ...built, checksum: versions[0].providers[0].checksum }
}

/** The path of the host's kubectl; undefined if it is not built. */
export const builtKubectl = (): string | undefined => {
  const from = known()
  const key = keyOf(from, 'kubernetes')
  return from.cache.has(key) ? join(from.cache.path(key), 'kubectl') : undefined
}

/** @throws LabError for a cache that parts cannot be kept in */
export const openPartsCache = async (): Promise<Cache> => {
  const root = cacheRoot()
  await refuseCachePath(root)
  return new Cache(root)
}

const refuseCachePath = async (root: string): Promise<void> => {
  if (/[:\s']/.test(root))
    throw new LabError(
      'cache-path',
      `${root}: the path of the cache must not contain a colon, quote or space`,
      {
        // Not in /var/tmp, where files older than a month are removed.
        hint: 'LAB_CACHE=$HOME/.lab-cache lab …, or LAB_CACHE=/srv/lab-cache lab …',
        exitCode: exitCodes.usage,
      },
    )
  await openCache(root)
}

/**
 * Builds what is missing: about twelve minutes on two cores with an empty cache, and nothing if all exists. Two
 * processes may run it at once.
 * @throws LabError for the part that failed, with its log
 * @throws Interrupted when the signal fired
 */
export const prepareParts = async (
  options: PartsOptions & { readonly preparation: Preparation },
): Promise<PreparedParts> => {
  return resultOf(await build(() => known(options.images), targets, options.preparation))
}

/** Builds the missing image archives of a lab. */
export const prepareImages = async (
  references: readonly string[],
  preparation: Preparation,
): Promise<void> => {
  const wanted = pins().images.filter(({ reference }) => references.includes(reference))
  await build(
    () => known(references),
    wanted.map(({ name }) => imagePart(name)),
    preparation,
  )
}

/** Selects what to keep in addition to the parts of the present pins. */
export interface PruneOptions {
  /** Paths in use, such as the base disks of existing machines. */
  readonly keep?: readonly string[]
  /** Whether to remove also what only speeds up the next build: intermediate parts and Go's caches. */
  readonly intermediate?: boolean
}

/** The architectures, besides this host's own, for which boxes were built here. */
const foreign = (): readonly Architecture[] =>
  architectures.filter((each) => each !== hostArchitecture() && canBuildFor(pins(), each))

const unused = async ({ keep = [], intermediate = false }: PruneOptions): Promise<OldPart[]> => {
  const from = known(pins().images.map(({ reference }) => reference))
  const wanted = known()
  const complete = targets.every((id) => wanted.cache.has(keyOf(wanted, id)))
  const ids = intermediate && complete ? targets : [...from.hashes.keys()]
  const current = new Set(ids.flatMap((id) => [keyOf(from, id), keyOf(wanted, id)]))
  for (const architecture of foreign()) {
    const others = knownForeign(architecture)
    for (const { id } of intermediate ? [] : others.parts) current.add(keyOf(others, id))
  }
  return from.cache.old(current, [...keep, ...(await partsInUse(from.cache.root))])
}

/** Removes parts of earlier versions, leftovers of killed builds, and logs older than 30 days. */
export const pruneParts = async (options: PruneOptions = {}): Promise<readonly OldPart[]> => {
  const { cache } = known()
  await cache.sweep()
  await cache.removeLogs(30)
  const removed = await unused(options)
  for (const part of removed) await cache.remove(part)
  if (options.intermediate) await removeTree(join(cache.root, 'go'))
  return removed
}
