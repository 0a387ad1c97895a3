/** The base disk: the root file system of machines, made of Debian and the files that are added to it. */
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import Handlebars from 'handlebars'
import { projectRoot } from '../package.js'
import type { Build, Part } from './part.js'
import { type ImagePin, imagePart, partsFolder, type Pins, referenceOf } from './pins.js'

export const templates = join(projectRoot, 'templates', 'base')

const handlebars = Handlebars.create()

/** Copies a folder of templates to `target`, by default `templates/base`. A file `x.hbs` is rendered as `x`. */
export const layOutFiles = async (
  target: string,
  data: object,
  { templates: all = templates, folder = all }: { templates?: string; folder?: string } = {},
): Promise<void> => {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const from = join(folder, entry.name)
    if (entry.isDirectory()) {
      await layOutFiles(target, data, { templates: all, folder: from })
      continue
    }
    const to = join(target, relative(all, from))
    await mkdir(dirname(to), { recursive: true })
    if (entry.name.endsWith('.hbs')) {
      const template = handlebars.compile(await readFile(from, 'utf8'), { strict: true, noEscape: true })
      await writeFile(to.slice(0, -'.hbs'.length), template(data))
    } else await copyFile(from, to)
    // The modes of a checkout depend on the umask; Git records only the executable bit.
    const executable = ((await stat(from)).mode & 0o100) !== 0
    await chmod(to.replace(/\.hbs$/, ''), executable ? 0o755 : 0o644)
  }
}

/** A file of `templates/base` as the base disk has it, for machines that get single files of it. @param path `etc/hosts` */
export const baseFile = async (path: string): Promise<string> => {
  const { pins } = await import('./pins.js')
  const file = join(templates, path)
  if (existsSync(file)) return readFile(file, 'utf8')
  const template = handlebars.compile(await readFile(`${file}.hbs`, 'utf8'), { strict: true, noEscape: true })
  return template({ pause: machineParts(pins().images).sandboxImage })
}

/** What the root file system of machines contains in addition to Debian. */
export const machineParts = (images: readonly ImagePin[]) => ({
  programs: {
    kubernetes: ['kubeadm', 'kubelet', 'kubectl'],
    containerd: ['containerd', 'containerd-shim-runc-v2', 'ctr'],
  },
  plugins: ['bridge', 'host-local', 'loopback', 'portmap'],
  sandboxImage: images.find(({ name }) => name === 'pause')?.reference ?? '',
})

/** Makes the root file system of machines: `disk.ext4` in `out`. */
export const buildRootFilesystem = async (
  build: Build,
  pins: Pins,
  images: readonly ImagePin[],
  { system, masked, work, out }: { system: string; masked: readonly string[]; work: string; out: string },
): Promise<void> => {
  const { programs, plugins, sandboxImage } = machineParts(images)
  const files = join(work, 'files')
  await layOutFiles(files, { pause: sandboxImage })
  await build.run([join(partsFolder, 'base-disk', 'build.sh')], {
    network: false,
    environment: {
      SYSTEM: join(build.need(system), 'root'),
      FILES: files,
      PROGRAMS: Object.entries(programs)
        .flatMap(([part, names]) => names.map((name) => join(build.need(part), name)))
        .join('\n'),
      PLUGINS: plugins.map((name) => join(build.need('cni-plugins'), name)).join('\n'),
      IMAGES: images
        .map(({ name, reference }) => `${reference}=${join(build.need(imagePart(name)), 'image.tar')}`)
        .join('\n'),
      MASKED: masked.join('\n'),
      RELEASE: build.hash,
      SIZE: pins.baseDisk.size,
      WORK: work,
      OUT: out,
    },
  })
}

export const baseDisk = (pins: Pins, images: readonly ImagePin[]): Part => {
  const { programs, plugins, sandboxImage } = machineParts(images)
  return {
    id: 'base-disk',
    title: 'Base disk',
    needs: ['system', ...Object.keys(programs), 'cni-plugins', ...images.map(({ name }) => imagePart(name))],
    lane: 'base-disk',
    values: { baseDisk: pins.baseDisk, programs, plugins, sandboxImage },
    files: [templates, join(partsFolder, 'base-disk')],
    reference: referenceOf(pins, 'base-disk'),
    build: (build) =>
      buildRootFilesystem(build, pins, images, {
        system: 'system',
        masked: pins.baseDisk.masked,
        work: build.work,
        out: build.out,
      }),
  }
}
