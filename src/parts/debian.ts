/** Debian systems: those in which other parts are built, and the one on the machines. */
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Architecture, isForeign } from './architecture.js'
import { keyring } from './host.js'
import type { Build, Part } from './part.js'
import { type Pins, referenceOf } from './pins.js'
import { registryClient } from './upstream.js'

/** Makes builds reproducible, as far as the packages allow. */
export const reproducible = { SOURCE_DATE_EPOCH: '1767225600' }

/** Files that neither machines nor containers need. */
export const unread = [
  '/usr/share/doc/*',
  '/usr/share/man/*',
  '/usr/share/locale/*',
  '/usr/share/info/*',
  '/usr/share/lintian/*',
]

interface Bootstrap {
  readonly variant: 'minbase' | 'essential' | 'extract'
  /** The architecture of the system, then others whose packages it may contain. Default: this host's. */
  readonly architectures?: readonly Architecture[]
  /** Debian's release. Default: the machines' release. */
  readonly suite?: string | undefined
  readonly environment?: Readonly<Record<string, string>>
  readonly format: 'directory' | 'tar'
  readonly packages: readonly string[]
  readonly backports?: boolean
  readonly hooks?: readonly string[]
  /** The folder or file to make, below `out` or `work`. */
  readonly target: string
}

/** Makes a Debian system from packages. */
export const bootstrap = async (build: Build, { debian }: Pins, options: Bootstrap): Promise<void> => {
  const mirror = process.env['LAB_DEBIAN_MIRROR'] ?? debian.mirror
  const security = process.env['LAB_DEBIAN_SECURITY_MIRROR'] ?? debian.securityMirror
  const suite = options.suite ?? debian.suite
  const sources = join(build.work, 'lab.list')
  const signed = `[signed-by=${keyring()}]`
  await writeFile(
    sources,
    [
      `deb ${signed} ${mirror} ${suite} main`,
      `deb ${signed} ${security} ${suite}-security main`,
      ...(options.backports ? [`deb ${signed} ${mirror} ${suite}-backports main`] : []),
      '',
    ].join('\n'),
  )
  const temporary = join(build.work, 'tmp')
  await mkdir(temporary)
  // The user _apt must be able to enter it.
  await chmod(temporary, 0o755)
  await build.run(
    [
      'mmdebstrap',
      // In the sandbox we are already root in a namespace.
      '--mode=root',
      `--variant=${options.variant}`,
      `--format=${options.format}`,
      `--include=${options.packages.join(',')}`,
      // mmdebstrap would look for qemu in binfmt_misc, but foreign programs are run in another way here.
      ...(options.architectures && isForeign(options.architectures)
        ? [`--architectures=${options.architectures.join(',')}`, '--skip=check/qemu']
        : []),
      ...unread.map((path) => `--dpkgopt=path-exclude=${path}`),
      // Java's packages link to manual pages in this folder, which the system leaves out.
      '--setup-hook=mkdir -p "$1/usr/share/man/man1"',
      // mmdebstrap runs no customize hooks for the variant extract.
      ...(options.hooks ?? []).map(
        (hook) => `--${options.variant === 'extract' ? 'extract' : 'customize'}-hook=${hook}`,
      ),
      suite,
      options.target,
      sources,
    ],
    { environment: { TMPDIR: temporary, ...reproducible, ...options.environment } },
  )
}

export const builder = (pins: Pins): Part => ({
  id: 'builder',
  title: 'Compilers',
  needs: [],
  lane: 'kernel',
  // The current code no longer uses `source`. It stays in the hash, since removing it would rebuild everything.
  values: { suite: pins.debian.suite, ...pins.builder, source: pins.kernel.source, unread },
  files: [],
  reference: referenceOf(pins, 'builder'),
  build: (build) =>
    bootstrap(build, pins, {
      variant: 'minbase',
      format: 'directory',
      packages: pins.builder.packages,
      backports: true,
      hooks: ['mkdir -p "$1/lab"', 'touch "$1/etc/resolv.conf" "$1/etc/hosts"'],
      target: join(build.out, 'root'),
    }),
})

/** A Debian system with pip. */
export const fetcher = (pins: Pins): Part => ({
  id: 'fetcher',
  title: 'pip',
  needs: [],
  lane: 'debian',
  values: { suite: pins.debian.suite, ...pins.fetcher, unread },
  files: [],
  reference: referenceOf(pins, 'fetcher'),
  build: (build) =>
    bootstrap(build, pins, {
      variant: 'minbase',
      format: 'directory',
      packages: pins.fetcher.packages,
      hooks: ['mkdir -p "$1/lab"', 'touch "$1/etc/resolv.conf" "$1/etc/hosts"'],
      target: join(build.out, 'root'),
    }),
})

export const system = (pins: Pins, architecture: Architecture): Part => ({
  id: 'system',
  title: `Debian ${pins.debian.suite}`,
  needs: [],
  lane: 'debian',
  values: { suite: pins.debian.suite, ...pins.system, unread },
  files: [],
  reference: referenceOf(pins, 'system'),
  build: (build) =>
    bootstrap(build, pins, {
      variant: 'minbase',
      architectures: [architecture],
      format: 'directory',
      packages: pins.system.packages,
      target: join(build.out, 'root'),
    }),
})

/** Hooks that make the mount points of enter.sh, so that programs can run in this root directory. */
const enterable = [
  'mkdir -p "$1/lab" "$1/etc/ssl/certs"',
  'touch "$1/etc/resolv.conf" "$1/etc/hosts" "$1/etc/ssl/certs/ca-certificates.crt"',
]

/** A Debian system with tools that builds run in it. */
export const toolsRoot = (
  pins: Pins,
  tools: Pick<Part, 'id' | 'title'> &
    Pick<Bootstrap, 'packages' | 'architectures'> &
    Partial<Pick<Bootstrap, 'variant'>>,
): Part => {
  const { id, title, packages, architectures, variant = 'minbase' } = tools
  return {
    id,
    title,
    needs: [],
    lane: 'debian',
    values: { suite: pins.debian.suite, packages, hooks: enterable, unread },
    files: [],
    reference: referenceOf(pins, id),
    build: (build) =>
      bootstrap(build, pins, {
        variant,
        ...(architectures && { architectures }),
        format: 'directory',
        packages,
        hooks: enterable,
        target: join(build.out, 'root'),
      }),
  }
}

/** The program that pulls images for any architecture. It runs although its packages are not configured. */
export const registryClientPart = (pins: Pins): Part =>
  toolsRoot(pins, {
    id: registryClient,
    title: 'Registry client',
    packages: pins.registryClient.packages,
    variant: 'extract',
  })
