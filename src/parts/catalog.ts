/** The real parts: what machines of User-Mode Linux are made of, from Debian packages and Go modules only. */
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { availableParallelism, homedir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import Handlebars from 'handlebars'
import { LabError } from '../error.js'
import { quote } from '../machine/sh.js'
import { projectRoot } from '../render.js'
import { enter, enterScript, runApart, runInside } from './enter.js'
import type { Build, Part } from './part.js'
import { keyring } from './host.js'
import { digestOf, type LayerEntry, writeImageArchive, writeLayer } from './image-archive.js'
import { fetchPackage, type KernelSource, type Substitutes } from './substitutes.js'
import { type Architecture, type ImagePin, imagePart, partsFolder, type Pins } from './pins.js'
import { mavenRepository } from './maven.js'
import { publishedImage, registryClient, releasedPrograms } from './upstream.js'

const templates = join(projectRoot, 'templates', 'base')
const boxTemplates = join(projectRoot, 'templates', 'box')

/** The same files at every build, as far as packages allow. */
const reproducible = { SOURCE_DATE_EPOCH: '1767225600' }

/** Files that no machine and no container reads. */
const unread = [
  '/usr/share/doc/*',
  '/usr/share/man/*',
  '/usr/share/locale/*',
  '/usr/share/info/*',
  '/usr/share/lintian/*',
]

interface Bootstrap {
  readonly variant: 'minbase' | 'essential' | 'extract'
  /** The processor it is for, and others whose packages it may have; default: this host's. */
  readonly architectures?: readonly Architecture[]
  /** Of Debian; that of machines where nothing is said. */
  readonly suite?: string | undefined
  readonly environment?: Readonly<Record<string, string>>
  readonly format: 'directory' | 'tar'
  readonly packages: readonly string[]
  readonly backports?: boolean
  readonly hooks?: readonly string[]
  /** Where it is put: a directory or a file below `out` or `work`. */
  readonly target: string
}

/** Whether more is meant than this host's own processor. */
const isForeign = (architectures: readonly Architecture[]): boolean =>
  architectures.some((architecture) => architecture !== (hostArchitecture() ?? 'amd64'))

/** A Debian system of some packages. */
const bootstrap = async (build: Build, { debian }: Pins, options: Bootstrap): Promise<void> => {
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
  // apt's own user has to get through to it.
  await chmod(temporary, 0o755)
  await build.run(
    [
      'mmdebstrap',
      // The sandbox is a namespace already, in which we are root.
      '--mode=root',
      `--variant=${options.variant}`,
      `--format=${options.format}`,
      `--include=${options.packages.join(',')}`,
      // Whether programs of another processor run here is not looked up, but seen.
      ...(options.architectures && isForeign(options.architectures)
        ? [`--architectures=${options.architectures.join(',')}`, '--skip=check/qemu']
        : []),
      ...unread.map((path) => `--dpkgopt=path-exclude=${path}`),
      // Java's packages make links to their manual pages, which are not there.
      '--setup-hook=mkdir -p "$1/usr/share/man/man1"',
      // A system that was only extracted is never customized.
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

const builder = (pins: Pins): Part => ({
  id: 'builder',
  title: 'Compilers',
  needs: [],
  lane: 'kernel',
  // The kernel's source lay in it once, and still counts: to leave it out would compile everything anew, for nothing.
  values: { suite: pins.debian.suite, ...pins.builder, source: pins.kernel.source, unread },
  files: [],
  reference: pins.reference['builder'] ?? unknownReference('builder'),
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

/** How a kernel is tried that was just built. That it finds no root file system is the last that it has to say. */
const bootOnce = `
TMPDIR=/dev/shm timeout 60 /lab/out/linux mem=64M con=null con0=null,fd:1 panic=-1 seccomp=auto > /tmp/boot 2>&1 || true
grep -m 1 'Linux version' /tmp/boot && grep 'Unable to mount root fs' /tmp/boot ||
  { tail -n 5 /tmp/boot; echo 'error: this kernel does not boot'; exit 1; }
`

const kernel = (pins: Pins, source: KernelSource): Part => ({
  id: 'kernel',
  title: `Linux ${source.version.split('-')[0] ?? ''}`,
  needs: ['builder'],
  lane: 'kernel',
  values: { source, patches: pins.kernel.patches },
  files: [join(partsFolder, 'kernel'), enterScript],
  reference: pins.reference['kernel'] ?? unknownReference('kernel'),
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
      build.say(`Looking which patches ${source.version} has already`)
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
            reason: `${source.package} ${source.version}, which Debian has instead of the pinned ${pins.kernel.source.version}, cannot take its place`,
            hint: `LAB_DEBIAN_MIRROR=https://snapshot.debian.org/archive/debian/DATE lab …, with a DATE on which Debian had ${pins.kernel.source.version}: see https://snapshot.debian.org/binary/${source.package}/`,
          }
        : undefined
    await runInside(build, ['/lab/src/build.sh'], {
      ...shared,
      // It leaves the processors to the Go programs, on which the base disk waits; nothing waits for the kernel.
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
      // Where it keeps what it is called by.
      environment: { HOME: '/tmp' },
      ...(blame && { blame }),
    })
  },
})

/** The folder with the archive of the kernel's source. */
const kernelSource = async (build: Build, pins: Pins, source: KernelSource): Promise<string> => {
  const name = basename(source.archive)
  // A builder that an earlier version of this program made has it.
  const earlier = join(build.need('builder'), 'root', source.archive)
  if (!('deb' in source) && existsSync(earlier) && (await digestOf(earlier)) === source.sha256)
    return dirname(earlier)
  build.say(`Fetching ${source.package} ${source.version}`)
  await fetchPackage(build, pins, source)
  const folder = join(build.work, 'source')
  const archive = join(folder, name)
  const found = existsSync(archive) ? await digestOf(archive) : 'none, since there is no such file'
  if (!('deb' in source) && found !== source.sha256)
    throw new LabError(
      'digest-mismatch',
      `${source.archive} of ${source.package} ${source.version} has sha256 ${found}, pinned is ${source.sha256}`,
      { hint: 'the mirror gives something else under that version: name another by LAB_DEBIAN_MIRROR=…' },
    )
  return folder
}

/** A Debian with the ordinary client of PyPI. */
const fetcher = (pins: Pins): Part => ({
  id: 'fetcher',
  title: 'pip',
  needs: [],
  lane: 'debian',
  values: { suite: pins.debian.suite, ...pins.fetcher, unread },
  files: [],
  reference: pins.reference['fetcher'] ?? unknownReference('fetcher'),
  build: (build) =>
    bootstrap(build, pins, {
      variant: 'minbase',
      format: 'directory',
      packages: pins.fetcher.packages,
      hooks: ['mkdir -p "$1/lab"', 'touch "$1/etc/resolv.conf" "$1/etc/hosts"'],
      target: join(build.out, 'root'),
    }),
})

const pinnedJars = 'jars.sha256'

/** The jars of an image, each fetched and compared with its digest before anybody opens it. */
const jars = (pins: Pins, id: string, title: string, recipe: string): Part => {
  const script = join(partsFolder, 'fetcher', 'jars.sh')
  const list = join(partsFolder, 'images', recipe, pinnedJars)
  return {
    id,
    title,
    needs: [],
    lane: 'images',
    values: {},
    files: [script, list],
    reference: pins.reference['fetched'] ?? unknownReference('fetched'),
    build: async (build) => {
      const { repository, proxy, login } = await mavenRepository()
      const auth = join(build.work, 'auth')
      await writeFile(auth, login)
      build.say(`Fetching ${title} from ${repository.host}`)
      await runApart(build, ['bash', '/lab/jars.sh', repository.href.replace(/\/$/, '')], {
        inputs: { '/lab/jars.sh': script, [`/lab/${pinnedJars}`]: list, '/lab/auth': auth },
        network: true,
        environment: { ...(proxy !== undefined && { https_proxy: proxy, http_proxy: proxy }) },
        blame: {
          code: 'fetch',
          reason: `${title} could not be fetched from ${repository.host}`,
          hint: 'check the network and https_proxy, and ~/.m2/settings.xml where this host has a mirror of Maven Central',
        },
      })
    },
  }
}

/** Python packages of an image, each with its digest. */
const python = (pins: Pins, id: string, title: string, recipe: string): Part => {
  const script = join(partsFolder, 'fetcher', 'python.sh')
  const requirements = join(partsFolder, 'images', recipe, 'requirements.txt')
  return {
    id,
    title,
    needs: ['fetcher'],
    lane: 'images',
    values: {},
    files: [script, enterScript, requirements],
    reference: pins.reference['fetched'] ?? unknownReference('fetched'),
    build: async (build) => {
      build.say(`Fetching ${title}`)
      const settings = '/etc/pip.conf'
      await runInside(build, ['bash', '/lab/fetch.sh'], {
        root: 'fetcher',
        binds: [],
        inputs: {
          '/lab/fetch.sh': script,
          '/lab/requirements.txt': requirements,
          // What pip has been told on this host: whom to trust, whom to ask.
          ...(existsSync(settings) && { [settings]: settings }),
        },
        network: true,
        environment: { HOME: '/tmp', ...reproducible },
        blame: {
          code: 'fetch',
          reason: `${title} could not be fetched, or is not what is pinned`,
          hint: 'check the network, and /etc/pip.conf where this host has a mirror of its own',
        },
      })
    },
  }
}

/** Where Go keeps what it fetched and compiled, for the next version. */
const goCache = (cacheRoot: string): string => join(cacheRoot, 'go')

interface GoPart {
  readonly id: string
  readonly title: string
  /** Its folder of `parts/`, if it is not called like the part. */
  readonly folder?: string
  readonly packages?: string
  readonly linkerFlags?: readonly string[]
}

const goEnvironment = (pins: Pins): Record<string, string> => ({
  PATH: `${pins.builder.goRoot}/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
  HOME: '/tmp',
  CGO_ENABLED: '0',
  GOTOOLCHAIN: 'local',
  GOMODCACHE: '/lab/go/mod',
  GOCACHE: '/lab/go/build',
  // The last one counts, so what the user has set cannot undo ours.
  GOFLAGS: `${process.env['GOFLAGS'] ?? ''} -mod=readonly -modcacherw -buildvcs=false`.trim(),
  SSL_CERT_FILE: '/etc/ssl/certs/ca-certificates.crt',
})

/** What a Go build has: its module, the caches, and what `go env -w` has set on the host. */
const goInside = async (cacheRoot: string, folder: string) => {
  const caches = goCache(cacheRoot)
  await mkdir(join(caches, 'mod'), { recursive: true })
  await mkdir(join(caches, 'build'), { recursive: true })
  const settings = join(process.env['XDG_CONFIG_HOME'] ?? join(homedir(), '.config'), 'go', 'env')
  const inputs: Record<string, string> = {
    '/lab/src': join(partsFolder, folder),
    ...(existsSync(settings) && { '/lab/go-env': settings }),
  }
  return { binds: [`${caches}:/lab/go`], writable: [caches], inputs }
}

const moduleProxy = (module: string): { code: string; reason: string; hint: string } => {
  const proxy = process.env['GOPROXY'] ?? 'https://proxy.golang.org,direct'
  return {
    code: 'module-proxy',
    reason: `the modules of ${module} could not be fetched from the Go module proxy ${proxy}`,
    hint: 'check the network and https_proxy, or name another: GOPROXY=https://…',
  }
}

const goPart = (pins: Pins, cacheRoot: string, architecture: Architecture, part: GoPart): Part => {
  const pinned = pins.modules[part.id]
  if (!pinned) throw new Error(`parts.yaml pins no module ${part.id}`)
  const packages = part.packages ?? 'tool'
  const linkerFlags = ['-s', '-w', ...(part.linkerFlags ?? [])].join(' ')
  return {
    id: part.id,
    title: `${part.title} ${pinned.version.slice(1)}`,
    needs: ['builder'],
    lane: 'go',
    values: { pinned, packages, linkerFlags },
    files: [join(partsFolder, part.folder ?? part.id), join(partsFolder, 'builder', 'go.sh'), enterScript],
    reference: pins.reference[part.id] ?? unknownReference(part.id),
    fetch: releasedPrograms(pins, { id: part.id, version: pinned.version, architecture }),
    build: async (build) => {
      const inside = await goInside(cacheRoot, part.folder ?? part.id)
      inside.inputs['/lab/go.sh'] = join(partsFolder, 'builder', 'go.sh')
      const environment = {
        ...goEnvironment(pins),
        GOENV: '/lab/go-env',
        GOARCH: architecture,
        PACKAGES: packages,
        LDFLAGS: linkerFlags,
      }
      build.say(`Fetching the modules of ${pinned.module}`)
      await runInside(build, ['bash', '/lab/go.sh', 'list'], {
        ...inside,
        network: true,
        environment,
        blame: moduleProxy(pinned.module),
      })
      await runInside(build, ['bash', '/lab/go.sh', 'build'], { ...inside, network: false, environment })
    },
  }
}

/** What kubeadm and the API server say they are; kubeadm refuses to work with "unknown". */
const kubernetesVersion = (version: string): readonly string[] => {
  const [major = '', minor = ''] = version.slice(1).split('.')
  const values: Record<string, string> = {
    gitVersion: version,
    gitMajor: major,
    gitMinor: minor,
    gitCommit: 'module',
    gitTreeState: 'clean',
    buildDate: '2026-01-01T00:00:00Z',
  }
  return [
    ...Object.entries(values).map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`),
    `-X k8s.io/client-go/pkg/version.gitVersion=${version}`,
  ]
}

/** As Debian calls the C compiler for a processor, on that processor and on others. */
const compilers: Readonly<Record<Architecture, string>> = {
  amd64: 'x86_64-linux-gnu-gcc',
  arm64: 'aarch64-linux-gnu-gcc',
}

const pause = (pins: Pins, cacheRoot: string, architecture: Architecture): Part => {
  const version =
    pins.images
      .find(({ name }) => name === 'pause')
      ?.reference.split(':')
      .at(-1) ?? ''
  const compiler = isForeign([architecture]) ? 'cross' : 'builder'
  return {
    id: 'pause',
    title: `pause ${version}`,
    needs: [...new Set(['builder', compiler])],
    // After the Kubernetes programs, which fetch its module anyway.
    lane: 'go',
    values: { module: pins.modules['kubernetes'], version },
    files: [join(partsFolder, 'pause'), join(partsFolder, 'kubernetes'), enterScript],
    reference: pins.reference['pause'] ?? unknownReference('pause'),
    build: async (build) => {
      const script = { '/lab/build.sh': join(partsFolder, 'pause', 'build.sh') }
      const { inputs, ...caches } = await goInside(cacheRoot, 'kubernetes')
      await runInside(build, ['bash', '/lab/build.sh', 'fetch'], {
        ...caches,
        inputs: { ...inputs, ...script },
        network: true,
        environment: { ...goEnvironment(pins), GOENV: '/lab/go-env' },
        blame: moduleProxy('k8s.io/kubernetes'),
      })
      await runInside(build, ['bash', '/lab/build.sh', 'compile'], {
        root: compiler,
        binds: [],
        inputs: script,
        network: false,
        environment: { VERSION: version, CC: compilers[architecture] },
      })
    },
  }
}

const system = (pins: Pins, architecture: Architecture): Part => ({
  id: 'system',
  title: `Debian ${pins.debian.suite}`,
  needs: [],
  lane: 'debian',
  values: { suite: pins.debian.suite, ...pins.system, unread },
  files: [],
  reference: pins.reference['system'] ?? unknownReference('system'),
  build: (build) =>
    bootstrap(build, pins, {
      variant: 'minbase',
      architectures: [architecture],
      format: 'directory',
      packages: pins.system.packages,
      target: join(build.out, 'root'),
    }),
})

/** What programs expect of a root directory that holds nothing else. */
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

/** The libraries that programs of a root directory need, as its own loader finds them. */
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

/** What an image is called does not make it another image. */
const withoutAliases = <T extends ImagePin>(pin: T): Omit<T, 'aliases'> => {
  const { aliases, ...rest } = pin
  return rest
}

const image = (pins: Pins, pin: ImagePin, architecture: Architecture): Part => {
  const id = imagePart(pin.name)
  const shared = {
    id,
    title: `Image ${pin.reference.slice(pin.reference.lastIndexOf('/') + 1)}`,
    reference: pins.reference[id] ?? pins.reference['image'] ?? unknownReference('image'),
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
  // Only what is said is hashed: that nothing more can be said for an image makes it no other image.
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
        // The folder is bound for the script, whatever characters its path has.
        hooks: existsSync(customize) ? [`bash '${customize.replaceAll("'", `'\\''`)}' "$1"`] : [],
        target: layer,
      })
      build.say(`Writing ${pin.reference}`)
      await finish(build, layer, await digestOf(layer))
    },
  }
}

const handlebars = Handlebars.create()

/** Copies a folder of templates, `templates/base`, to `target`; a file `x.hbs` is rendered and becomes `x`. */
const layOutFiles = async (
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
    // A checkout may have been made with any umask.
    const executable = ((await stat(from)).mode & 0o100) !== 0
    await chmod(to.replace(/\.hbs$/, ''), executable ? 0o755 : 0o644)
  }
}

/** What goes into the root file system of machines beside the Debian system itself. */
const machineParts = (images: readonly ImagePin[]) => ({
  programs: {
    kubernetes: ['kubeadm', 'kubelet', 'kubectl'],
    containerd: ['containerd', 'containerd-shim-runc-v2', 'ctr'],
  },
  plugins: ['bridge', 'host-local', 'loopback', 'portmap'],
  sandboxImage: images.find(({ name }) => name === 'pause')?.reference ?? '',
})

/** Makes `out`/disk.ext4, the root file system of machines. */
const buildRootFilesystem = async (
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

const baseDisk = (pins: Pins, images: readonly ImagePin[]): Part => {
  const { programs, plugins, sandboxImage } = machineParts(images)
  return {
    id: 'base-disk',
    title: 'Base disk',
    needs: ['system', ...Object.keys(programs), 'cni-plugins', ...images.map(({ name }) => imagePart(name))],
    lane: 'base-disk',
    values: { baseDisk: pins.baseDisk, programs, plugins, sandboxImage },
    files: [templates, join(partsFolder, 'base-disk')],
    reference: pins.reference['base-disk'] ?? unknownReference('base-disk'),
    build: (build) =>
      buildRootFilesystem(build, pins, images, {
        system: 'system',
        masked: pins.baseDisk.masked,
        work: build.work,
        out: build.out,
      }),
  }
}

// Boxes for Vagrant

/** Debian, with its kernel, and ready for Vagrant. */
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
    reference: pins.reference['box-system'] ?? unknownReference('box-system'),
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

/** Hooks for a root directory that is entered: what enter.sh binds from the host has to be there. */
const enterable = [
  'mkdir -p "$1/lab" "$1/etc/ssl/certs"',
  'touch "$1/etc/resolv.conf" "$1/etc/hosts" "$1/etc/ssl/certs/ca-certificates.crt"',
]

/** A Debian with some tools, to be entered. */
const toolsRoot = (
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
    reference: pins.reference[id] ?? unknownReference(id),
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

/** What pulls images, for whatever processor. Its packages need not be configured to run. */
const registryClientPart = (pins: Pins): Part =>
  toolsRoot(pins, {
    id: registryClient,
    title: 'Registry client',
    packages: pins.registryClient.packages,
    variant: 'extract',
  })

const boxTools = (pins: Pins, architecture: Architecture): Part =>
  toolsRoot(pins, {
    id: 'box-tools',
    title: 'Tools for boxes',
    packages: pins.box.tools[architecture],
    // The tools run here; the boot loader that they install is the machines'.
    architectures: [...new Set([hostArchitecture() ?? architecture, architecture])],
  })

/** A disk that boots by itself on whatever virtual machine. */
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
    reference: pins.reference['box-disk'] ?? unknownReference('box-disk'),
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

/** Who runs the machines that a box is for. */
export type BoxProvider = 'libvirt' | 'virtualbox'

export const boxPart = (provider: BoxProvider): string => `box-${provider}`

/** In the part of a box: the box itself, and what `vagrant box add` takes it from. */
export const boxFiles = { box: 'lab-debian-13.box', metadata: 'lab-debian-13.json' } as const

/** What Vagrant reads about a box before it takes it: where it is, and what it must be. */
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
          /** Since Vagrant 2.4; older ones ignore it. */
          readonly architecture: Architecture
        },
      ]
    },
  ]
}

/** Under which name Vagrant knows it. */
export const boxName = 'lab/debian-13'

/**
 * Vagrant takes numbers with dots for versions, and thinks the largest the newest. The last one stands for all that
 * went into the box.
 */
export const boxVersionOf = (kubernetes: string, hash: string): string =>
  `${kubernetes.replace(/^v/, '')}.${String(Number.parseInt(hash.slice(0, 8), 16))}`

/** @param checksum sha256 of the box, which lies beside this file: whoever copies one copies both */
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
    reference: pins.reference[id] ?? unknownReference(id),
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

const unknownReference = (id: string): never => {
  throw new Error(`parts.yaml has no reference for ${id}`)
}

/** The architecture of this host; undefined where boxes are for none such. */
export const hostArchitecture = (): Architecture | undefined =>
  (({ x64: 'amd64', arm64: 'arm64' }) as const)[process.arch as 'x64' | 'arm64']

// Parts for another processor than this host's

const emulateScript = join(partsFolder, 'cross', 'emulate.sh')

/** What makes parts for another processor: a C compiler, and an emulator for what only runs on that processor. */
const cross = (pins: Pins, architecture: Architecture): Part =>
  toolsRoot(pins, {
    id: 'cross',
    title: 'Emulator and compiler',
    packages: pins.cross[architecture]?.packages ?? [],
  })

/** A part whose own programs run while it is built, which are emulated here. */
const emulated = (part: Part, pins: Pins, architecture: Architecture): Part => ({
  ...part,
  needs: [...part.needs, 'cross'],
  values: { of: part.values, emulator: pins.cross[architecture]?.emulator },
  files: [...part.files, emulateScript],
  reference: { ...part.reference, seconds: part.reference.seconds * pins.emulationFactor },
  build: (build) => {
    const emulator = join(build.need('cross'), 'root', pins.cross[architecture]?.emulator ?? '')
    return part.build({
      ...build,
      run: (command, options) => build.run([emulateScript, architecture, emulator, ...command], options),
    })
  },
})

/** What a part is called that is for another processor than this host's own. */
export const foreignPart = (id: string, architecture: Architecture): string => `${id}-${architecture}`

/** Beside those of this host's own processor: each is called what it is called there, and for which processor it is. */
const renamed = (parts: readonly Part[], architecture: Architecture): readonly Part[] => {
  const named = (id: string): string =>
    parts.some((part) => part.id === id) ? foreignPart(id, architecture) : id
  const within = (build: Build): Build => ({ ...build, need: (id) => build.need(named(id)) })
  return parts.map(({ fetch, ...part }) => ({
    ...part,
    id: named(part.id),
    title: `${part.title}, ${architecture}`,
    needs: part.needs.map(named),
    values: { architecture, all: part.values },
    fetch: fetch && {
      ...fetch,
      needs: fetch.needs.map(named),
      run: (build, url) => fetch.run(within(build), url),
    },
    build: (build) => part.build(within(build)),
  }))
}

/** What machines of a processor consist of, whoever runs them; each part after those that it needs. */
const machinesParts = (
  pins: Pins,
  cacheRoot: string,
  images: readonly ImagePin[],
  architecture: Architecture,
): readonly Part[] => {
  const go = (part: GoPart): Part => goPart(pins, cacheRoot, architecture, part)
  const imageParts = images.map((pin) => image(pins, pin, architecture))
  // Of these only what the images are made of: whoever asks for none of them does not wait for them.
  const forImages: Part[] = []
  for (const part of [
    jars(pins, 'jars-cassandra', 'the jars of Cassandra', 'cassandra'),
    python(pins, 'python-cassandra', 'cqlsh', 'cassandra'),
    jars(pins, 'jars-kubernetes-zookeeper', 'the jars of ZooKeeper', 'kubernetes-zookeeper'),
    go({ id: 'local-path-provisioner', title: 'local-path-provisioner' }),
    fetcher(pins),
  ])
    if ([...imageParts, ...forImages].some(({ needs }) => needs.includes(part.id))) forImages.unshift(part)
  return [
    system(pins, architecture),
    go({
      id: 'kubernetes',
      title: 'Kubernetes',
      linkerFlags: kubernetesVersion(pins.modules['kubernetes']?.version ?? ''),
    }),
    go({ id: 'containerd', title: 'containerd' }),
    go({ id: 'coredns', title: 'CoreDNS', packages: '.' }),
    go({ id: 'etcd', title: 'etcd' }),
    go({ id: 'cni-plugins', title: 'CNI plugins' }),
    ...forImages,
    pause(pins, cacheRoot, architecture),
    ...imageParts,
  ]
}

const boxParts = (pins: Pins, images: readonly ImagePin[], architecture: Architecture): readonly Part[] => [
  boxTools(pins, architecture),
  boxSystem(pins, architecture),
  boxDisk(pins, images, architecture),
  box(pins, 'libvirt', architecture),
  box(pins, 'virtualbox', architecture),
]

/**
 * All parts for this host's own processor, each after those that it needs.
 * @param extraImages references of optional images for the base disk.
 * @param taken what is taken instead of what is pinned.
 * @throws LabError `no-image` for one that parts.yaml does not have.
 */
export const catalog = (
  pins: Pins,
  cacheRoot: string,
  extraImages: readonly string[] = [],
  taken: Pick<Substitutes, 'kernel'> = {},
): readonly Part[] => {
  for (const name of extraImages)
    if (!pins.images.some(({ reference }) => reference === name))
      throw new LabError('no-image', `there is no image ${name} in parts/parts.yaml`, {
        hint: `it has ${pins.images.map(({ reference }) => reference).join(', ')}`,
      })
  const images = pins.images.filter((pin) => !pin.optional || extraImages.includes(pin.reference))
  const architecture = hostArchitecture()
  return [
    builder(pins),
    registryClientPart(pins),
    kernel(pins, taken.kernel ?? pins.kernel.source),
    ...machinesParts(pins, cacheRoot, images, architecture ?? 'amd64'),
    baseDisk(pins, images),
    ...(architecture === undefined ? [] : boxParts(pins, images, architecture)),
  ]
}

/** Whether boxes for this processor can be built on this host. */
export const canBuildFor = (pins: Pins, architecture: Architecture): boolean =>
  !isForeign([architecture]) || (hostArchitecture() === 'amd64' && pins.cross[architecture] !== undefined)

/** The parts of boxes for a processor that is not this host's own; their ids end with its name. */
export const foreignCatalog = (
  pins: Pins,
  cacheRoot: string,
  architecture: Architecture,
): readonly Part[] => {
  const images = pins.images.filter(({ optional }) => !optional)
  const parts = [
    cross(pins, architecture),
    ...machinesParts(pins, cacheRoot, images, architecture),
    ...boxParts(pins, images, architecture),
  ]
  // What runs programs of the system that it makes.
  const runsThem = ({ id }: Part): boolean => /^(system|image-.*|box-system|box-disk)$/.test(id)
  return [
    builder(pins),
    registryClientPart(pins),
    ...renamed(
      parts.map((part) => (runsThem(part) ? emulated(part, pins, architecture) : part)),
      architecture,
    ),
  ]
}
