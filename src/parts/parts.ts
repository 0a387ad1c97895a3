import { join } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import type { Preparation } from '../provider/provider.js'
import { Cache, cacheRoot, type OldPart } from './cache.js'
import { catalog } from './catalog.js'
import { buildParts, hashesOf, type Part } from './graph.js'
import { imagePart, pins } from './pins.js'
import { removeTree } from './sandbox.js'

/** What a machine is made of: absolute paths of files that are there. */
export interface PreparedParts {
  /** A User-Mode Linux kernel, one static program. */
  readonly kernel: string
  /** An ext4 image, sparse; machines write to a copy-on-write file of their own. */
  readonly baseDisk: string
  /** For the host: they are static programs too. */
  readonly kubectl: string
  readonly kubeadm: string
  /** Names the base disk by all that went into it, as /etc/lab/base-release does on a machine. */
  readonly release: string
}

export interface PartsOptions {
  /** References of optional images of parts.yaml that the base disk shall have beside the usual ones. */
  readonly images?: readonly string[]
}

/** What users of parts ask for; everything else is only on the way to it. */
const targets = ['kernel', 'kubernetes', 'base-disk'] as const

interface Known {
  readonly parts: readonly Part[]
  readonly hashes: ReadonlyMap<string, string>
  readonly cache: Cache
}

const memory = new Map<string, Known>()

/** Hashing reads a hundred small files; they do not change under a running program. */
const known = (images: readonly string[] = []): Known => {
  const root = cacheRoot()
  const key = JSON.stringify([root, ...[...images].sort()])
  let found = memory.get(key)
  if (!found) {
    const parts = catalog(pins(), root, images)
    found = { parts, hashes: hashesOf(parts), cache: new Cache(root) }
    memory.set(key, found)
  }
  return found
}

const keyOf = ({ hashes }: Known, id: string): string => `${id}-${hashes.get(id) ?? ''}`

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

/** Whether everything is there, and where. Asks only the file system, and takes milliseconds. */
export const preparedParts = async (
  options: PartsOptions = {},
): Promise<PreparedParts | { readonly missing: readonly string[] }> => {
  const from = known(options.images)
  const missing = targets.filter((id) => !from.cache.has(keyOf(from, id)))
  return Promise.resolve(missing.length > 0 ? { missing } : resultOf(from))
}

/**
 * Builds what is missing: cold about twelve minutes on two cores, warm nothing. Safe to run twice at once.
 * @throws LabError for the part that failed, with its log. @throws Interrupted when the signal fired.
 */
export const prepareParts = async (
  options: PartsOptions & { readonly preparation: Preparation },
): Promise<PreparedParts> => {
  const from = known(options.images)
  if (/[:\s']/.test(from.cache.root))
    throw new LabError(
      'cache-path',
      `${from.cache.root}: the cache must not have a colon, quote or space in its path`,
      {
        hint: 'LAB_CACHE=/var/tmp/lab-cache lab …',
        exitCode: exitCodes.usage,
      },
    )
  await buildParts(from.parts, targets, from.cache, options.preparation)
  return resultOf(from)
}

/** The archive of an image that a lab may have, once parts of such a lab were prepared; undefined: it is not built. */
export const imageArchive = (reference: string): string | undefined => {
  const from = known([reference])
  const pin = pins().images.find((candidate) => candidate.reference === reference)
  const key = pin && keyOf(from, imagePart(pin.name))
  return key !== undefined && from.cache.has(key) ? join(from.cache.path(key), 'image.tar') : undefined
}

/** Everything that `keep` and the present pins do not need. */
export interface PruneOptions {
  /** Paths that somebody still uses, say the base disks of machines that exist. */
  readonly keep?: readonly string[]
  /** Also what only speeds up the next build: intermediate parts and Go's caches. */
  readonly intermediate?: boolean
}

const unused = async ({ keep = [], intermediate = false }: PruneOptions): Promise<OldPart[]> => {
  const from = known(pins().images.map(({ reference }) => reference))
  const wanted = known()
  const complete = targets.every((id) => wanted.cache.has(keyOf(wanted, id)))
  const ids = intermediate && complete ? targets : [...from.hashes.keys()]
  const current = new Set(ids.flatMap((id) => [keyOf(from, id), keyOf(wanted, id)]))
  return from.cache.old(current, keep)
}

/** Parts of earlier versions, with the bytes that they take on the disk. Removes nothing. */
export const oldParts = (options: PruneOptions = {}): Promise<readonly OldPart[]> => unused(options)

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
