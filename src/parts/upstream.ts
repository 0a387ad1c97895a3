/** Parts that their own projects publish: programs on release pages, images in registries. */
import { join } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import { runApart, runInside } from './enter.js'
import type { Fetch } from './part.js'
import type { Architecture } from './architecture.js'
import { partsFolder, type Pins } from './pins.js'

const scripts = join(partsFolder, 'upstream')

/** The id of the part that pulls images. */
export const registryClient = 'registry-client'

/**
 * The user's setting for a kind of upstream: unset, `no`, or another address.
 * @throws LabError `upstream-address` for an invalid value
 */
const mirrorOf = (variable: 'LAB_RELEASES' | 'LAB_REGISTRY'): URL | 'no' | undefined => {
  const said = process.env[variable]?.trim()
  if (!said) return undefined
  if (said === 'no') return 'no'
  const written = said.includes('://') ? said : `https://${said}`
  if (URL.canParse(written) && /^https?:/.test(written)) return new URL(written)
  throw new LabError('upstream-address', `${variable}=${said} is neither an http address nor \`no\``, {
    hint: `${variable}=https://mirror.example lab …, or ${variable}=no lab …`,
    exitCode: exitCodes.usage,
  })
}

/** An address, or its counterpart on a mirror, where the path starts with the original host name. */
export const mirrored = (address: string): URL | undefined => {
  const mirror = mirrorOf('LAB_RELEASES')
  if (mirror === 'no') return undefined
  return new URL(mirror ? address.replace(/^https:\/(?=\/)/, mirror.href.replace(/\/$/, '')) : address)
}

/** A released file and its digest; `undefined` if none is pinned. */
interface Released {
  readonly address: string
  readonly sha256: string | undefined
}

/** The released files for a part's programs: an archive or single files; undefined if they are not released. */
export const releasedFiles = (
  pins: Pins,
  { id, version, architecture }: { id: string; version: string; architecture: Architecture },
): { readonly address: string; readonly files: readonly Released[] } | undefined => {
  const release = pins.releases[id]
  if (!release) return undefined
  const address = release.address
    .replaceAll('{version}', version)
    .replaceAll('{number}', version.slice(1))
    .replaceAll('{architecture}', architecture)
  const addresses =
    release.checksum === undefined ? release.programs.map((program) => `${address}/${program}`) : [address]
  return { address, files: addresses.map((each) => ({ address: each, sha256: pins.digests[each] })) }
}

/**
 * The released programs of a part; undefined if they are not released as programs. Files without a digest in
 * parts.yaml are never fetched. `LAB_RELEASES`: with `no` nothing is fetched, with an address files are fetched from
 * there: `https://mirror.example/dl.k8s.io/release/…`.
 */
export const releasedPrograms = (
  pins: Pins,
  part: { id: string; version: string; architecture: Architecture },
): Fetch | undefined => {
  const release = pins.releases[part.id]
  const released = releasedFiles(pins, part)
  if (!release || !released) return undefined
  const digests = released.files.flatMap(({ sha256 }) => sha256 ?? [])
  const isPinned = digests.length === released.files.length
  return {
    from: () => {
      const url = mirrored(released.address)
      return isPinned ? url : undefined
    },
    needs: [],
    run: async (build, { href }) => {
      build.say(`Fetching ${href}`)
      const wanted =
        release.checksum === undefined
          ? [href, ...release.programs.map((program, index) => `${program}=${digests[index] ?? ''}`)]
          : ['--archive', href, digests[0] ?? '', ...release.programs]
      await runApart(build, ['bash', '/lab/programs.sh', ...wanted], {
        inputs: { '/lab/programs.sh': join(scripts, 'programs.sh') },
        network: true,
      })
    },
  }
}

/**
 * @param reference `registry.k8s.io/pause:3.10.2`
 * @returns `https://registry.k8s.io/pause:3.10.2`, or its counterpart on a mirror
 */
export const imageAddress = (reference: string): URL | undefined => {
  const mirror = mirrorOf('LAB_REGISTRY')
  if (mirror === 'no') return undefined
  if (!mirror) return new URL(`https://${reference}`)
  return new URL(`${mirror.href.replace(/\/$/, '')}${reference.slice(reference.indexOf('/'))}`)
}

/**
 * An image from its registry, in `image.tar`; an image without a digest in parts.yaml is never fetched.
 * `LAB_REGISTRY`: with `no` nothing is fetched, with a registry images are fetched from there by the same path:
 * `mirror.example:5000/coredns/coredns:v1.14.2`; with `http://` before it, without TLS.
 */
export const publishedImage = (pins: Pins, reference: string, architecture: Architecture): Fetch => ({
  from: () => {
    const url = imageAddress(reference)
    return pins.digests[reference] === undefined ? undefined : url
  },
  needs: [registryClient],
  run: async (build, { host, pathname, protocol }) => {
    build.say(`Pulling ${host}${pathname}`)
    const tls = String(protocol === 'https:')
    const wanted = [`${host}${pathname}`, reference, architecture, tls, pins.digests[reference] ?? '']
    await runInside(build, ['bash', '/lab/image.sh', ...wanted], {
      root: registryClient,
      binds: [],
      inputs: { '/lab/image.sh': join(scripts, 'image.sh') },
      network: true,
      environment: { HOME: '/tmp' },
    })
  },
})
