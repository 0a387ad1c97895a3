/** Images by the names that lab files and manifests use, as `parts/parts.yaml` has them. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { LabError } from '../error.js'
import { projectRoot } from '../render.js'
import type { Lab } from './lab.js'
import { didYouMean } from './suggest.js'

interface Image {
  readonly reference: string
  readonly aliases?: readonly string[]
  readonly optional?: boolean
}

let read: readonly Image[] | undefined

const known = (): readonly Image[] => {
  const file = join(projectRoot, 'parts', 'parts.yaml')
  if (!existsSync(file)) return []
  return (read ??= (parse(readFileSync(file, 'utf8'), { merge: true }) as { images: Image[] }).images)
}

/** `nginx:1.26` of `docker.io/library/nginx:1.26`. */
const shortName = (reference: string): string => reference.slice(reference.lastIndexOf('/') + 1)

const repositoryOf = (image: Image): string => shortName(image.reference).split(':')[0] ?? ''

/** By what names it may be asked for: `nginx:1.26`, in full, by an alias; without its version, if it is the only one. */
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

/** The names of those images that only some labs have, one name for each. */
export const optionalImages = (): readonly string[] =>
  known()
    .filter(({ optional }) => optional)
    .map(({ reference }) => shortName(reference))

/**
 * The reference of an image: `docker.io/library/nginx:1.26` of `nginx:1.26`, `docker.io/library/mariadb:11.8` of
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

/** What makes volumes, and what it makes their folders with. */
export const storageImages = { provisioner: 'local-path-provisioner', helper: 'busybox' } as const

/** References of the images that the nodes of a lab must have, beside those that every lab has. */
export const imagesOf = (lab: Pick<Lab, 'images' | 'storage'>): readonly string[] => [
  ...new Set(
    [...lab.images, ...(lab.storage.length > 0 ? Object.values(storageImages) : [])].map(imageReference),
  ),
]
