/** Boxes for Vagrant: a bootable disk, and the metadata that Vagrant reads. */
import { mkdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { quote } from '../machine/sh.js'
import { projectRoot } from '../package.js'
import { type Architecture, hostArchitecture } from './architecture.js'
import { enter, enterScript } from './enter.js'
import { digestOf } from './image-archive.js'
import type { Part } from './part.js'
import { type ImagePin, imagePart, partsFolder, type Pins, referenceOf } from './pins.js'
import { buildRootFilesystem, layOutFiles, machineParts, templates } from './base-disk.js'
import { bootstrap, toolsRoot, unread } from './debian.js'

const boxTemplates = join(projectRoot, 'templates', 'box')

/** A Debian system with Debian's kernel, prepared for Vagrant. */
const boxSystem = (pins: Pins, architecture: Architecture): Part => {
  const packages = [...pins.system.packages, ...pins.box.packages, pins.box.kernel[architecture]]
  const script = join(partsFolder, 'box', 'system.sh')
  return {
    id: 'box-system',
    title: `Debian ${pins.debian.suite} with its kernel`,
    needs: [],
    lane: 'debian',
    values: { suite: pins.debian.suite, packages, unread },
    files: [boxTemplates, script],
    reference: referenceOf(pins, 'box-system'),
    build: async (build) => {
      const files = join(build.work, 'files')
      await layOutFiles(files, {}, { templates: boxTemplates })
      await bootstrap(build, pins, {
        variant: 'minbase',
        architectures: [architecture],
        format: 'directory',
        packages,
        hooks: [`bash ${quote(script)} "$1" ${quote(files)}`],
        target: join(build.out, 'root'),
      })
    },
  }
}

const boxTools = (pins: Pins, architecture: Architecture): Part =>
  toolsRoot(pins, {
    id: 'box-tools',
    title: 'Tools for boxes',
    packages: pins.box.tools[architecture],
    // The tools run on this host and install a boot loader for the machines' architecture.
    architectures: [...new Set([hostArchitecture() ?? architecture, architecture])],
  })

/** A disk with a boot loader, which every hypervisor can boot. */
const boxDisk = (pins: Pins, images: readonly ImagePin[], architecture: Architecture): Part => {
  const { programs, plugins, sandboxImage } = machineParts(images)
  const masked = pins.baseDisk.masked.filter((unit) => !pins.box.unmasked.includes(unit))
  const script = join(partsFolder, 'box', 'disk.sh')
  return {
    id: 'box-disk',
    title: 'Disk for boxes',
    needs: [
      'box-system',
      'box-tools',
      ...Object.keys(programs),
      'cni-plugins',
      ...images.map(({ name }) => imagePart(name)),
    ],
    lane: 'base-disk',
    values: { size: pins.baseDisk.size, masked, programs, plugins, sandboxImage, architecture },
    files: [templates, join(partsFolder, 'base-disk'), script, enterScript],
    reference: referenceOf(pins, 'box-disk'),
    build: async (build) => {
      const work = join(build.work, 'root-filesystem')
      await mkdir(work)
      await buildRootFilesystem(build, pins, images, { system: 'box-system', masked, work, out: build.work })
      const binds = [`${script}:/lab/disk.sh:ro`]
      await build.run(await enter(build, ['bash', '/lab/disk.sh'], { root: 'box-tools', binds }), {
        network: false,
        environment: { ARCH: architecture },
      })
    },
  }
}

/** The Vagrant provider of a box. */
export type BoxProvider = 'libvirt' | 'virtualbox'

export const boxPart = (provider: BoxProvider): string => `box-${provider}`

/** File names in a box's part: the box, and the metadata that `vagrant box add` reads. */
export const boxFiles = { box: 'lab-debian-13.box', metadata: 'lab-debian-13.json' } as const

/** The metadata of a box: its location and checksum. */
export interface BoxMetadata {
  readonly name: string
  readonly description: string
  readonly versions: readonly [
    {
      readonly version: string
      readonly providers: readonly [
        {
          readonly name: BoxProvider
          readonly url: string
          readonly checksum_type: 'sha256'
          readonly checksum: string
          /** Since Vagrant 2.4; older versions ignore it. */
          readonly architecture: Architecture
        },
      ]
    },
  ]
}

/** The name of the box in Vagrant. */
export const boxName = 'lab/debian-13'

/**
 * A version that Vagrant accepts: numbers separated by dots, of which the largest counts as the newest. The last
 * number is derived from the part's hash, so that different content has a different version.
 */
export const boxVersionOf = (kubernetes: string, hash: string): string =>
  `${kubernetes.replace(/^v/, '')}.${String(Number.parseInt(hash.slice(0, 8), 16))}`

/** @param checksum sha256 of the box, which is in the same folder as the metadata */
export const boxMetadata = (
  pins: Pins,
  about: { provider: BoxProvider; architecture: Architecture; hash: string; checksum: string },
): BoxMetadata => {
  const { provider, architecture, hash, checksum } = about
  const kubernetes = pins.modules['kubernetes']?.version ?? ''
  return {
    name: boxName,
    description: `Debian ${pins.debian.suite} with Kubernetes ${kubernetes}, for ${architecture}`,
    versions: [
      {
        version: boxVersionOf(kubernetes, hash),
        providers: [{ name: provider, url: boxFiles.box, checksum_type: 'sha256', checksum, architecture }],
      },
    ],
  }
}

const box = (pins: Pins, provider: BoxProvider, architecture: Architecture): Part => {
  const id = boxPart(provider)
  const folder = join(projectRoot, 'templates', 'box-provider')
  const script = join(partsFolder, 'box', 'pack.sh')
  const kubernetes = pins.modules['kubernetes']?.version ?? ''
  return {
    id,
    title: `Box for ${provider}`,
    needs: ['box-tools', 'box-disk'],
    lane: 'boxes',
    values: { size: pins.baseDisk.size, kubernetes, architecture },
    files: [folder, script, enterScript],
    reference: referenceOf(pins, id),
    build: async (build) => {
      const disk = build.need('box-disk')
      const { size } = await stat(join(disk, 'disk.raw'))
      const content = join(build.work, 'box')
      await mkdir(content)
      const gibibytes = Math.ceil(size / 1024 ** 3)
      await layOutFiles(
        content,
        { size, gibibytes, arm64: architecture === 'arm64' },
        { templates: join(folder, provider) },
      )
      const binds = [`${script}:/lab/pack.sh:ro`, `${disk}:/lab/disk:ro`]
      await build.run(await enter(build, ['bash', '/lab/pack.sh'], { root: 'box-tools', binds }), {
        network: false,
        environment: { PROVIDER: provider, NAME: boxFiles.box },
      })
      const checksum = await digestOf(join(build.out, boxFiles.box))
      const metadata = boxMetadata(pins, { provider, architecture, hash: build.hash, checksum })
      await writeFile(join(build.out, boxFiles.metadata), `${JSON.stringify(metadata, null, 2)}\n`)
    },
  }
}

export const boxParts = (
  pins: Pins,
  images: readonly ImagePin[],
  architecture: Architecture,
): readonly Part[] => [
  boxTools(pins, architecture),
  boxSystem(pins, architecture),
  boxDisk(pins, images, architecture),
  box(pins, 'libvirt', architecture),
  box(pins, 'virtualbox', architecture),
]
