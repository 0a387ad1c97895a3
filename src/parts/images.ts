/** Container images, each as an archive that containerd imports. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Architecture } from './architecture.js'
import { digestOf, type LayerEntry, writeImageArchive, writeLayer } from './image-archive.js'
import type { Build, Part } from './part.js'
import { type ImagePin, imagePart, partsFolder, type Pins, referenceOf } from './pins.js'
import { publishedImage } from './upstream.js'
import { bootstrap, unread } from './debian.js'

/** What every image contains besides its own files, since programs expect it. */
const skeleton: readonly LayerEntry[] = [
  ...['/dev', '/etc', '/proc', '/run', '/sys', '/var'].map((path) => ({ path })),
  { path: '/tmp', mode: 0o1777 },
  {
    path: '/etc/passwd',
    content: 'root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n',
    mode: 0o644,
  },
  { path: '/etc/group', content: 'root:x:0:\nnogroup:x:65534:\n', mode: 0o644 },
]

/** The libraries that these programs need, as found by the loader of their root directory. */
const librariesOf = async (
  build: Build,
  root: string,
  programs: readonly string[],
): Promise<readonly string[]> => {
  const list = join(build.work, 'libraries')
  await build.run(
    [
      'bash',
      '-euo',
      'pipefail',
      '-c',
      'list=$1 root=$2; shift 2; for program; do chroot "$root" ldd "$program"; done | grep -o "/[^ ]*" | sort -u > "$list"',
      'libraries',
      list,
      root,
      ...programs,
    ],
    { network: false },
  )
  return (await readFile(list, 'utf8')).trim().split('\n')
}

/** The pin without other names of the image, which must not change its hash. */
const withoutAliases = <T extends ImagePin>(pin: T): Omit<T, 'aliases'> => {
  const { aliases, ...rest } = pin
  return rest
}

export const image = (pins: Pins, pin: ImagePin, architecture: Architecture): Part => {
  const id = imagePart(pin.name)
  const shared = {
    id,
    title: `Image ${pin.reference.slice(pin.reference.lastIndexOf('/') + 1)}`,
    reference: referenceOf(pins, id, 'image'),
  }
  const finish = async (build: Build, layer: string, digest: string): Promise<void> => {
    await writeImageArchive(join(build.out, 'image.tar'), { ...pin, architecture }, { path: layer, digest })
  }
  if (pin.kind === 'files')
    return {
      ...shared,
      needs: [...new Set([...pin.files.map(({ part }) => part), ...(pin.programs.length ? ['system'] : [])])],
      lane: 'images',
      values: { pin: withoutAliases(pin), skeleton },
      files: [],
      fetch: publishedImage(pins, pin.reference, architecture),
      build: async (build) => {
        const entries: LayerEntry[] = [...skeleton]
        for (const { part, file, path } of pin.files)
          entries.push({ path, from: join(build.need(part), file) })
        if (pin.programs.length > 0) {
          const root = join(build.need('system'), 'root')
          const libraries = await librariesOf(build, root, pin.programs)
          for (const path of [...pin.programs, ...libraries, ...(pin.reads ?? [])])
            entries.push({ path, from: join(root, path) })
        }
        build.say(`Writing ${pin.reference}`)
        const layer = join(build.work, 'layer.tar')
        await finish(build, layer, await writeLayer(layer, entries))
      },
    }
  const folder = join(partsFolder, 'images', pin.recipe ?? pin.name)
  const customize = join(folder, 'customize.sh')
  // Optional fields that are absent stay out of the hash, so that a new one does not change existing images.
  const { bare, with: others, ...said } = withoutAliases(pin)
  return {
    ...shared,
    needs: others,
    lane: 'debian',
    values: {
      pin: { ...said, ...(bare && { bare }), ...(others.length > 0 && { with: others }) },
      suite: pin.suite ?? pins.debian.suite,
      unread,
    },
    files: existsSync(folder) ? [folder] : [],
    build: async (build) => {
      const layer = join(build.work, 'layer.tar')
      await bootstrap(build, pins, {
        variant: pin.bare ? 'extract' : 'essential',
        architectures: [architecture],
        suite: pin.suite,
        format: 'tar',
        packages: pin.packages,
        environment: Object.fromEntries(
          others.map((part) => [`LAB_${part.split('-')[0]?.toUpperCase() ?? ''}`, build.need(part)]),
        ),
        // mmdebstrap passes a hook to a shell, so the path is quoted.
        hooks: existsSync(customize) ? [`bash '${customize.replaceAll("'", `'\\''`)}' "$1"`] : [],
        target: layer,
      })
      build.say(`Writing ${pin.reference}`)
      await finish(build, layer, await digestOf(layer))
    },
  }
}
