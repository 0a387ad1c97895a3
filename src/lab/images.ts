/** Images by the names that lab files and manifests use, from `parts/parts.yaml`. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { LabError } from '../error.js'
import { projectRoot } from '../package.js'
import type { Lab, MachineSpec } from './lab.js'
import { didYouMean } from './suggest.js'

interface Image {
  readonly name: string
  readonly reference: string
  readonly aliases?: readonly string[]
  readonly optional?: boolean
}

/** What lab files can use of `parts/parts.yaml`. */
interface Parts {
  readonly modules?: { readonly kubernetes?: { readonly version?: unknown } }
  readonly images: readonly Image[]
}

let read: Parts | undefined

/** Undefined: the file is missing. It does not change while the program runs. */
export const parts = (): Parts | undefined => {
  const file = join(projectRoot, 'parts', 'parts.yaml')
  if (!existsSync(file)) return undefined
  return (read ??= parse(readFileSync(file, 'utf8'), { merge: true }) as Parts)
}

const known = (): readonly Image[] => parts()?.images ?? []

/** `nginx:1.26` for `docker.io/library/nginx:1.26`. */
const shortName = (reference: string): string => reference.slice(reference.lastIndexOf('/') + 1)

const repositoryOf = (image: Image): string => shortName(image.reference).split(':')[0] ?? ''

/**
 * The names of an image: `nginx:1.26`, the full reference, its aliases, and without a version if it is the only one.
 */
const namesOf = (image: Image): readonly string[] => {
  const repository = repositoryOf(image)
  const only = known().every((other) => other === image || repositoryOf(other) !== repository)
  return [
    shortName(image.reference),
    image.reference,
    ...(only ? [repository] : []),
    ...(image.aliases ?? []),
  ]
}

/** One name for each image that only some labs have. */
export const optionalImages = (): readonly string[] =>
  known()
    .filter(({ optional }) => optional)
    .map(({ reference }) => shortName(reference))

/**
 * The reference of an image: `docker.io/library/nginx:1.26` for `nginx:1.26`, `docker.io/library/mariadb:11.8` for
 * `mysql`.
 * @throws LabError `no-image`
 */
export const imageReference = (name: string): string => {
  const found = known().find((image) => namesOf(image).includes(name))
  if (found) return found.reference
  const names = known().map(({ reference }) => shortName(reference))
  throw new LabError('no-image', `there is no image ${name}${didYouMean(name, names)}`, {
    hint: `there are ${names.join(', ')}`,
  })
}

/** References of the images that the nodes of every lab have. */
export const commonImages = (): readonly string[] =>
  known()
    .filter(({ optional }) => !optional)
    .map(({ reference }) => reference)

/** Images whose pods run only on control planes, and those that only a lab with a database uses. */
const ofControlPlanes = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'etcd']
const ofDatabases = ['debian', 'mariadb']

/**
 * References of the images that one node uses. A base disk has all images, because all nodes share it; a machine that
 * somebody else made gets only these.
 */
export const imagesUsedOn = (
  lab: Pick<Lab, 'images' | 'storage' | 'database'>,
  { role }: Pick<MachineSpec, 'role'>,
): readonly string[] => {
  const isControlPlane = role === 'control-plane'
  const common = known()
    .filter(({ optional }) => !optional)
    .filter(({ name }) => isControlPlane || !ofControlPlanes.includes(name))
    .filter(({ name }) => !ofDatabases.includes(name) || (!isControlPlane && lab.database !== undefined))
    .map(({ reference }) => reference)
  return isControlPlane ? common : [...new Set([...common, ...imagesOf(lab)])]
}

/** The image that provisions volumes and the one with which it makes their folders. */
export const storageImages = { provisioner: 'local-path-provisioner', helper: 'busybox' } as const

/** References of the images that the nodes of a lab need in addition to those of every lab. */
export const imagesOf = (lab: Pick<Lab, 'images' | 'storage'>): readonly string[] => [
  ...new Set(
    [...lab.images, ...(lab.storage.length > 0 ? Object.values(storageImages) : [])].map(imageReference),
  ),
]
