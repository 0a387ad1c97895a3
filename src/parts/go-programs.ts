/** Programs built from Go modules, and `pause`, whose C source is in one of these modules. */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { type Architecture, isForeign } from './architecture.js'
import { enterScript, runInside } from './enter.js'
import type { Part } from './part.js'
import { partsFolder, type Pins, referenceOf } from './pins.js'
import { releasedPrograms } from './upstream.js'

/** Go's caches of modules and of compiled packages. They outlive parts, and speed up the next version. */
const goCache = (cacheRoot: string): string => join(cacheRoot, 'go')

export interface GoPart {
  readonly id: string
  readonly title: string
  /** Its folder in `parts/`. Default: `id`. */
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
  // Go uses the last value of a flag, so the user's flags cannot override these.
  GOFLAGS: `${process.env['GOFLAGS'] ?? ''} -mod=readonly -modcacherw -buildvcs=false`.trim(),
  SSL_CERT_FILE: '/etc/ssl/certs/ca-certificates.crt',
})

/** What a Go build sees: the module, the caches, and the user's settings from `go env -w`. */
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
    hint: 'check the network and https_proxy, or name another proxy: GOPROXY=https://…',
  }
}

export const goPart = (pins: Pins, cacheRoot: string, architecture: Architecture, part: GoPart): Part => {
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
    reference: referenceOf(pins, part.id),
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

/** Linker flags that set the version of kubeadm and of the API server; kubeadm refuses the default, "unknown". */
export const kubernetesVersion = (version: string): readonly string[] => {
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

/** Debian's names of native and cross C compilers, by target architecture. */
const compilers: Readonly<Record<Architecture, string>> = {
  amd64: 'x86_64-linux-gnu-gcc',
  arm64: 'aarch64-linux-gnu-gcc',
}

export const pause = (pins: Pins, cacheRoot: string, architecture: Architecture): Part => {
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
    // In the lane of the Kubernetes programs, which fetch the same module.
    lane: 'go',
    values: { module: pins.modules['kubernetes'], version },
    files: [join(partsFolder, 'pause'), join(partsFolder, 'kubernetes'), enterScript],
    reference: referenceOf(pins, 'pause'),
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
