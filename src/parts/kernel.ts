/** The kernel of User-Mode Linux, compiled from the source that Debian publishes. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { LabError } from '../error.js'
import { enterScript, runInside } from './enter.js'
import { digestOf } from './image-archive.js'
import type { Build, Part } from './part.js'
import { partsFolder, type Pins, referenceOf } from './pins.js'
import { fetchPackage, type KernelSource } from './substitutes.js'

/**
 * The arguments with which a kernel without any disk boots until it finds no root file system, in one place because
 * the build and `lab doctor` both boot one. DRBD reserves 1 MiB for each minor device at boot, 32 of them by default,
 * and a kernel with 64 MiB then runs out of memory. Measured: 18 of 20 boots failed so, and none with 96 MiB.
 */
export const trialBoot = [
  'mem=128M',
  'drbd.minor_count=1',
  'con=null',
  'con0=null,fd:1',
  'panic=-1',
  'seccomp=auto',
] as const

/** What the kernel says when it has come as far as a kernel without a disk can. */
export const trialEnd = 'Unable to mount root fs'

/**
 * Boots the new kernel. It has no root file system, so it succeeds if its own message says so; else the error has the
 * kernel's own reason.
 */
const bootOnce = `
TMPDIR=/dev/shm timeout 60 /lab/out/linux ${trialBoot.join(' ')} > /tmp/boot 2>&1 || true
grep -m 1 'Linux version' /tmp/boot && grep '${trialEnd}' /tmp/boot || {
  cat /tmp/boot
  echo "error: this kernel does not boot: $(grep -m 1 'Kernel panic' /tmp/boot || tail -n 1 /tmp/boot)"
  exit 1
}
`

export const kernel = (pins: Pins, source: KernelSource): Part => ({
  id: 'kernel',
  title: `Linux ${source.version.split('-')[0] ?? ''}`,
  needs: ['builder'],
  lane: 'kernel',
  values: { source, patches: pins.kernel.patches },
  files: [join(partsFolder, 'kernel'), enterScript],
  reference: referenceOf(pins, 'kernel'),
  build: async (build) => {
    for (const { file, sha256 } of pins.kernel.patches) {
      const found = await digestOf(join(partsFolder, 'kernel', file))
      if (found !== sha256)
        throw new LabError('kernel-patch', `parts/kernel/${file} has sha256 ${found}, pinned is ${sha256}`, {
          hint: 'restore the file, or set its sha256 under kernel.patches in parts/parts.yaml',
        })
    }
    const folder = await kernelSource(build, pins, source)
    const archive = `/lab/source/${basename(source.archive)}`
    const shared = {
      binds: [`${folder}:/lab/source:ro`],
      inputs: { '/lab/src': join(partsFolder, 'kernel') },
      network: false,
    }
    let patches = pins.kernel.patches.map(({ file }) => file)
    if ('deb' in source) {
      build.say(`Checking which patches ${source.version} already has`)
      await runInside(build, ['bash', '/lab/patches.sh'], {
        ...shared,
        inputs: { ...shared.inputs, '/lab/patches.sh': join(partsFolder, 'upstream', 'patches.sh') },
        environment: { ARCHIVE: archive, PATCHES: patches.join(' ') },
      })
      patches = (await readFile(join(build.work, 'patches'), 'utf8')).split('\n').filter(Boolean)
    }
    const blame =
      'deb' in source
        ? {
            code: 'kernel-source',
            reason: `Debian has ${source.package} ${source.version} instead of the pinned ${pins.kernel.source.version}, and it cannot be used`,
            hint: `LAB_DEBIAN_MIRROR=https://snapshot.debian.org/archive/debian/DATE lab …, with a DATE on which Debian had ${pins.kernel.source.version}: see https://snapshot.debian.org/binary/${source.package}/`,
          }
        : undefined
    await runInside(build, ['/lab/src/build.sh'], {
      ...shared,
      // The Go programs are more urgent, since the base disk waits for them and nothing waits for the kernel.
      niceness: 10,
      environment: {
        ARCHIVE: archive,
        PATCHES: patches.join(' '),
        JOBS: String(availableParallelism()),
        KBUILD_BUILD_TIMESTAMP: '2026-01-01',
        KBUILD_BUILD_USER: 'lab',
        KBUILD_BUILD_HOST: 'lab',
      },
      ...(blame && { blame }),
    })
    build.say('Booting it once')
    await runInside(build, ['bash', '-c', bootOnce], {
      binds: [],
      network: false,
      // User-Mode Linux keeps the sockets of its console (umid) there.
      environment: { HOME: '/tmp' },
      ...(blame && { blame }),
    })
  },
})

/** Fetches the kernel's source and returns the folder of its archive. */
const kernelSource = async (build: Build, pins: Pins, source: KernelSource): Promise<string> => {
  const name = basename(source.archive)
  // The builder of an earlier version of lab contains the archive.
  const earlier = join(build.need('builder'), 'root', source.archive)
  if (!('deb' in source) && existsSync(earlier) && (await digestOf(earlier)) === source.sha256)
    return dirname(earlier)
  build.say(`Fetching ${source.package} ${source.version}`)
  await fetchPackage(build, pins, source)
  const folder = join(build.work, 'source')
  const archive = join(folder, name)
  const found = existsSync(archive) ? await digestOf(archive) : 'none, because there is no such file'
  if (!('deb' in source) && found !== source.sha256)
    throw new LabError(
      'digest-mismatch',
      `${source.archive} of ${source.package} ${source.version} has sha256 ${found}, pinned is ${source.sha256}`,
      {
        hint: 'the mirror delivers something else under that version: name another mirror with LAB_DEBIAN_MIRROR=…',
      },
    )
  return folder
}
