/**
 * Substitutes for pinned versions that Debian has withdrawn. Backports keep a version only for some weeks, and a
 * program that accepts no other would then be useless on a new host. The chosen substitute is recorded in the cache
 * and is part of the hash of parts, so a lab keeps the kernel that it was made with.
 */
import { readFileSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LabError } from '../error.js'
import type { Preparation } from './preparation.js'
import { runApart } from './enter.js'
import type { Build } from './part.js'
import { keyring } from './host.js'
import { partsFolder, type Pins } from './pins.js'
import { diagnose } from './diagnose.js'
import { removeTree, runInSandbox } from './sandbox.js'

type PinnedSource = Pins['kernel']['source']

/** A package that Debian now signs; `deb` is its digest in the signed list. */
interface TakenSource extends Omit<PinnedSource, 'sha256'> {
  readonly deb: string
  readonly suite: string
}

export type KernelSource = PinnedSource | TakenSource

export interface Substitutes {
  readonly kernel?: TakenSource
  /** The package of a Go compiler. */
  readonly go?: string
}

/** A package offered by a suite of Debian. */
export interface Offer {
  readonly suite: string
  readonly package: string
  readonly version: string
  readonly sha256: string
}

/** The order of characters in Debian versions: `~`, the end, letters, everything else. */
const orderOf = (character: string | undefined): number => {
  if (character === '~') return -1
  if (character === undefined || /\d/.test(character)) return 0
  return character.charCodeAt(0) + (/[a-z]/i.test(character) ? 0 : 256)
}

const compareParts = (one: string, other: string): number => {
  let [i, j] = [0, 0]
  while (i < one.length || j < other.length) {
    while ((i < one.length && !/\d/.test(one[i] ?? '')) || (j < other.length && !/\d/.test(other[j] ?? ''))) {
      const difference = orderOf(one[i]) - orderOf(other[j])
      if (difference !== 0) return difference
      i += 1
      j += 1
    }
    const [a, b] = [/^\d*/.exec(one.slice(i))?.[0] ?? '', /^\d*/.exec(other.slice(j))?.[0] ?? '']
    if (Number(a) !== Number(b)) return Number(a) - Number(b)
    i += a.length
    j += b.length
  }
  return 0
}

/** As in `dpkg --compare-versions`: negative if the first is older. */
export const compareVersions = (one: string, other: string): number => {
  const split = (version: string): [number, string, string] => {
    const [, epoch = '0', rest = ''] = /^(?:(\d+):)?(.*)$/.exec(version) ?? []
    const dash = rest.lastIndexOf('-')
    return [Number(epoch), dash < 0 ? rest : rest.slice(0, dash), dash < 0 ? '' : rest.slice(dash + 1)]
  }
  const [a, b] = [split(one), split(other)]
  return a[0] - b[0] || compareParts(a[1], b[1]) || compareParts(a[2], b[2])
}

/** Whether a version is of the same series: 7.2.12-1~bpo13+1 and 7.2.13-1 are, 7.20.1-1 is not. */
const sameSeries = (pinned: string, version: string): boolean => {
  const series = /^(?:\d+:)?\d+\.\d+/.exec(pinned)?.[0] ?? pinned
  return version === series || version.startsWith(`${series}.`) || version.startsWith(`${series}-`)
}

/**
 * Chooses from Debian's offers: the pinned version if it is available, else the newest of the same series.
 * @param offers the suites, the preferred ones first
 */
export const chooseSource = (
  pinned: PinnedSource,
  offers: readonly Offer[],
): 'pinned' | TakenSource | undefined => {
  const fitting = offers.filter((offer) => offer.package === pinned.package)
  if (fitting.some(({ version }) => version === pinned.version)) return 'pinned'
  const [first] = fitting.filter(({ version }) => sameSeries(pinned.version, version))
  if (first === undefined) return undefined
  // By suite first: one built for this Debian before a newer one from elsewhere.
  const newest = fitting
    .filter(({ suite, version }) => suite === first.suite && sameSeries(pinned.version, version))
    .reduce((a, b) => (compareVersions(a.version, b.version) < 0 ? b : a))
  const { archive, package: name } = pinned
  return { package: name, version: newest.version, archive, deb: newest.sha256, suite: newest.suite }
}

const goPackage = /^golang-1\.(\d+)-go$/

/**
 * The pinned Go compiler if it is available, else the oldest newer one, since a newer one compiles what an older one
 * does.
 */
export const chooseGo = (pinned: string, offers: readonly Offer[]): string | undefined => {
  const minor = (name: string): number => Number(goPackage.exec(name)?.[1] ?? 0)
  const names = offers.map((offer) => offer.package).filter((name) => minor(name) >= minor(pinned))
  return names.reduce<string | undefined>(
    (a, b) => (a === undefined || minor(b) < minor(a) ? b : a),
    undefined,
  )
}

/** The Go compiler among the packages of the builder. */
export const pinnedGo = (pins: Pins): string =>
  pins.builder.packages.find((name) => goPackage.test(name)) ?? ''

/** These pins, with another Go compiler. */
export const withGo = (pins: Pins, go: string | undefined): Pins => {
  if (go === undefined) return pins
  const packages = pins.builder.packages.map((name) => (goPackage.test(name) ? go : name))
  const goRoot = `/usr/lib/${go.replace(/^golang-(.*)-go$/, 'go-$1')}`
  return { ...pins, builder: { packages, goRoot } }
}

// The recorded substitutes.

interface Remembered extends Substitutes {
  /** The pins that they replace: for other pins they are invalid. */
  readonly pinned: { readonly kernel: string; readonly go: string }
}

const file = (cacheRoot: string): string => join(cacheRoot, 'substitutes.json')

const pinnedOf = (pins: Pins): Remembered['pinned'] => ({
  kernel: `${pins.kernel.source.package} ${pins.kernel.source.version}`,
  go: pinnedGo(pins),
})

/** The substitutes that this cache has recorded for these pins. */
export const rememberedSubstitutes = (pins: Pins, cacheRoot: string): Substitutes => {
  let text: string
  try {
    text = readFileSync(file(cacheRoot), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
  const { pinned, kernel, go } = rememberedIn(text) ?? {}
  const now = pinnedOf(pins)
  return {
    ...(kernel && pinned?.kernel === now.kernel && { kernel }),
    ...(go && pinned?.go === now.go && { go }),
  }
}

/** Undefined for a damaged file: the mirror is then asked again, which finds the same versions. */
const rememberedIn = (text: string): Partial<Remembered> | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

export const rememberSubstitutes = async (
  pins: Pins,
  cacheRoot: string,
  substitutes: Substitutes,
): Promise<void> => {
  await mkdir(cacheRoot, { recursive: true })
  const remembered: Remembered = { pinned: pinnedOf(pins), ...substitutes }
  const written = `${file(cacheRoot)}.${String(process.pid)}`
  // After a power cut, the file has its old or its new content.
  await writeFile(written, `${JSON.stringify(remembered, null, 2)}\n`, { flush: true })
  await rename(written, file(cacheRoot))
}

// How Debian is asked.

const script = join(partsFolder, 'upstream', 'debian.sh')

/** The suites that may have packages with an exact version, the preferred ones first. */
const suitesOf = ({ debian, kernel }: Pins): readonly string[] => [
  `${debian.suite}-backports`,
  ...kernel.otherSuites,
]

/** Runs apt with its own lists of these suites. The host's Debian keyring decides who may sign them. */
const apt = async (
  build: Pick<Build, 'out' | 'work' | 'run'>,
  { debian }: Pins,
  suites: readonly string[],
  command: readonly string[],
): Promise<void> => {
  const mirror = process.env['LAB_DEBIAN_MIRROR'] ?? debian.mirror
  const list = join(build.work, 'debian.list')
  const keys = join(build.work, 'debian-keys.gpg')
  await copyFile(keyring(), keys)
  await writeFile(
    list,
    suites.map((each) => `deb [signed-by=/lab/debian-keys.gpg] ${mirror} ${each} main\n`).join(''),
  )
  await runApart(build, ['bash', '/lab/debian.sh', ...command], {
    inputs: { '/lab/debian.sh': script, '/lab/debian.list': list, '/lab/debian-keys.gpg': keys },
    network: true,
  })
}

/** Fetches a package, and extracts its kernel source archive into the folder `source` of `work`. */
export const fetchPackage = async (build: Build, pins: Pins, source: KernelSource): Promise<void> => {
  const suites = 'deb' in source ? [source.suite] : suitesOf(pins)
  const wanted = [`${source.package}=${source.version}`, 'deb' in source ? source.deb : '', source.archive]
  await apt(build, pins, suites, ['fetch', ...wanted])
}

/**
 * The offers of these packages, suite by suite until `isEnough`.
 * @param signal aborts it
 */
const offersOf = async (
  pins: Pins,
  cacheRoot: string,
  pattern: string,
  isEnough: (offers: readonly Offer[]) => boolean,
  signal: AbortSignal,
): Promise<readonly Offer[]> => {
  const offers: Offer[] = []
  for (const suite of suitesOf(pins)) {
    await mkdir(cacheRoot, { recursive: true })
    const folder = await mkdtemp(join(cacheRoot, 'asking-'))
    try {
      const [out, work] = [join(folder, 'out'), join(folder, 'work')]
      await mkdir(out)
      await mkdir(work)
      const run: Build['run'] = async (command, options) => {
        const onLine = (line: string): void => {
          const [mark, name, version, sha256] = line.split(' ')
          if (mark === 'offer' && name && version && sha256)
            offers.push({ suite, package: name, version, sha256 })
        }
        const ending = await runInSandbox(command, { signal, ...options, onLine })
        if (!ending) return
        const known = diagnose(ending.tail)
        throw new LabError(
          known?.code ?? 'debian-mirror',
          known?.reason ?? `apt could not read ${suite}: ${ending.tail.at(-1) ?? ''}`,
          { hint: known?.hint },
        )
      }
      await apt({ out, work, run }, pins, [suite], ['offers', pattern])
    } finally {
      await removeTree(folder).catch(() => undefined)
    }
    if (isEnough(offers)) break
  }
  return offers
}

/**
 * Before the kernel or the compilers are built: finds out whether Debian still has the pinned versions, and chooses
 * substitutes otherwise. If Debian cannot be reached, nothing changes, and the build itself reports the problem.
 * @param wanted which of them will be built
 * @throws LabError `kernel-source` or `debian-package` if there is no substitute
 */
export const findSubstitutes = async (
  pins: Pins,
  cacheRoot: string,
  wanted: { readonly kernel: boolean; readonly go: boolean },
  { signal, notice }: Pick<Preparation, 'signal' | 'notice'>,
): Promise<Substitutes> => {
  const before = rememberedSubstitutes(pins, cacheRoot)
  const { source } = pins.kernel
  const enough = (offers: readonly Offer[]): boolean =>
    (!wanted.kernel || chooseSource(source, offers) !== undefined) &&
    (!wanted.go || chooseGo(pinnedGo(pins), offers) !== undefined)
  const pattern = `^(${source.package.replaceAll('.', '\\.')}|golang-1\\.[0-9]+-go)$`
  let offers: readonly Offer[]
  try {
    offers = await offersOf(pins, cacheRoot, pattern, enough, signal)
  } catch (error) {
    if (error instanceof LabError && error.code === 'debian-mirror') return before
    throw error
  }
  let { kernel, go } = before
  if (wanted.kernel) {
    const taken = chooseSource(source, offers)
    if (taken === undefined)
      throw new LabError(
        'kernel-source',
        `Debian no longer has ${source.package}, neither the pinned ${source.version} nor another version of its series, in ${suitesOf(pins).join(', ')}`,
        {
          hint: `LAB_DEBIAN_MIRROR=https://snapshot.debian.org/archive/debian/DATE lab …, with a DATE on which Debian had it: see https://snapshot.debian.org/binary/${source.package}/; or a newer lab`,
        },
      )
    kernel = taken === 'pinned' ? undefined : taken
    if (kernel && kernel.version !== before.kernel?.version)
      notice(
        `Debian no longer has the pinned ${source.package} ${source.version}. Using ${kernel.version} of ${kernel.suite}, which Debian signs: the patches must apply to it, and it must boot`,
      )
  }
  if (wanted.go) {
    const taken = chooseGo(pinnedGo(pins), offers)
    if (taken === undefined)
      throw new LabError(
        'debian-package',
        `Debian no longer has ${pinnedGo(pins)}, and no newer Go compiler, in ${suitesOf(pins).join(', ')}`,
        { hint: 'a newer lab, or LAB_DEBIAN_MIRROR=https://snapshot.debian.org/archive/debian/DATE' },
      )
    go = taken === pinnedGo(pins) ? undefined : taken
    if (go !== undefined && go !== before.go)
      notice(`Debian no longer has the pinned ${pinnedGo(pins)}. Using ${go}`)
  }
  const found: Substitutes = { ...(kernel && { kernel }), ...(go !== undefined && { go }) }
  if (JSON.stringify(found) !== JSON.stringify(before)) await rememberSubstitutes(pins, cacheRoot, found)
  return found
}
