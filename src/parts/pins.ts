import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { z } from 'zod'
import { projectRoot } from '../package.js'
import { architectures } from './architecture.js'

const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const names = z.array(z.string().min(1))

const imageBase = {
  name: z.string().regex(/^[a-z0-9-]+$/),
  reference: z.string().min(1),
  entrypoint: names.optional(),
  command: names.optional(),
  environment: z.record(z.string(), z.string()).optional(),
  /** Working directory of its containers. */
  directory: z.string().startsWith('/').optional(),
  /** The signal that stops its first process; default: TERM. */
  stopSignal: z
    .string()
    .regex(/^SIG[A-Z]+$/)
    .optional(),
  /** Other names for it in lab files and manifests; see `lab/images.ts`. */
  aliases: names.default([]),
  /** Present only in the base disks of labs that ask for it. */
  optional: z.boolean().default(false),
}

const filesImage = z.strictObject({
  ...imageBase,
  kind: z.literal('files'),
  /** Programs built by other parts. */
  files: z.array(z.strictObject({ part: z.string(), file: z.string(), path: z.string().startsWith('/') })),
  /** Programs of the Debian system, with the libraries that they need. */
  programs: z.array(z.string().startsWith('/')).default([]),
  /** Files of the Debian system that these programs read. */
  reads: z.array(z.string().startsWith('/')).optional(),
})

const suite = z.string().regex(/^[a-z]+$/)

const debianImage = z.strictObject({
  ...imageBase,
  kind: z.literal('debian'),
  packages: names,
  /** The Debian suite; default: that of everything else. */
  suite: suite.optional(),
  /** The folder of `parts/images/` that completes it; default: the name of the image. */
  recipe: z.string().optional(),
  /** Nothing but these packages. */
  bare: z.boolean().default(false),
  /** Fetched parts that the recipe adds to the image. */
  with: names.default([]),
})

const image = z.discriminatedUnion('kind', [filesImage, debianImage])

const reference = z.strictObject({
  seconds: z.number().positive(),
  lines: z.number().int().positive(),
  kept: z.number().positive(),
  scratch: z.number().positive(),
})

const schema = z.strictObject({
  debian: z.strictObject({ suite, mirror: z.url(), securityMirror: z.url() }),
  builder: z.strictObject({ packages: names, goRoot: z.string().startsWith('/') }),
  kernel: z.strictObject({
    source: z.strictObject({
      package: z.string(),
      version: z.string(),
      archive: z.string().startsWith('/'),
      sha256,
    }),
    /** Debian suites besides backports that may still have a package that is gone from there. */
    otherSuites: z.array(suite),
    patches: z.array(z.strictObject({ file: z.string(), sha256 })),
  }),
  modules: z.record(z.string(), z.strictObject({ module: z.string(), version: z.string().startsWith('v') })),
  releases: z.record(
    z.string(),
    z.strictObject({
      address: z.url({ protocol: /^https$/ }),
      /** The suffix of the file with an archive's checksum. */
      checksum: z.string().startsWith('.').optional(),
      programs: names,
    }),
  ),
  registryClient: z.strictObject({ packages: names }),
  fetcher: z.strictObject({ packages: names }),
  system: z.strictObject({ packages: names }),
  baseDisk: z.strictObject({ size: z.string().regex(/^\d+[MGT]$/), masked: names }),
  box: z.strictObject({
    packages: names,
    kernel: z.record(z.enum(architectures), z.string()),
    tools: z.record(z.enum(architectures), names),
    unmasked: names,
  }),
  cross: z.partialRecord(
    z.enum(architectures),
    z.strictObject({ packages: names, emulator: z.string().startsWith('/') }),
  ),
  emulationFactor: z.number().positive(),
  images: z.array(image),
  reference: z.record(z.string(), reference),
  /** By the address of a file or the reference of an image. */
  digests: z.record(z.string(), sha256),
})

export type Pins = z.infer<typeof schema>
export type ImagePin = z.infer<typeof image>
export type Reference = z.infer<typeof reference>

/** The folder of the pins and of all inputs of parts. */
export const partsFolder = join(projectRoot, 'parts')

let read: Pins | undefined

/** `parts/parts.yaml`, checked. */
export const pins = (): Pins =>
  (read ??= schema.parse(parse(readFileSync(join(partsFolder, 'parts.yaml'), 'utf8'), { merge: true })))

/**
 * The measurements of the first of these parts that has any.
 * @throws if parts.yaml has none of them
 */
export const referenceOf = ({ reference }: Pick<Pins, 'reference'>, ...ids: readonly string[]): Reference => {
  const [found] = ids.flatMap((id) => reference[id] ?? [])
  if (!found) throw new Error(`parts.yaml has no reference for ${ids.at(-1) ?? ''}`)
  return found
}

/** The name of an image's part. */
export const imagePart = (name: string): string => `image-${name}`
