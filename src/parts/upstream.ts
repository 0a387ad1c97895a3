/** Parts as their own projects publish them: programs on their release pages, images in their registries. */
import { join } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import { enter } from './enter.js'
import type { Fetch } from './graph.js'
import { type Architecture, partsFolder, type Pins } from './pins.js'

const scripts = join(partsFolder, 'upstream')

/** The id of the part that pulls images. */
export const registryClient = 'registry-client'

/**
 * What the user has set of a kind of upstream: nothing, `no`, or where else it is asked for.
 * @throws LabError `upstream-address` where it is none of these.
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

/** An address as it is, or on the mirror, below the name of the host that it is a mirror of. */
const mirrored = (address: string): URL | undefined => {
  const mirror = mirrorOf('LAB_RELEASES')
  if (mirror === 'no') return undefined
  return new URL(mirror ? address.replace(/^https:\/(?=\/)/, mirror.href.replace(/\/$/, '')) : address)
}

/**
 * The programs of a part as they were released; undefined where they are not, as programs.
 * `LAB_RELEASES`: `no` never asks, an address asks there instead: `https://mirror.example/dl.k8s.io/release/…`.
 */
export const releasedPrograms = (
  pins: Pins,
  { id, version, architecture }: { id: string; version: string; architecture: Architecture },
): Fetch | undefined => {
  const release = pins.releases[id]
  if (!release) return undefined
  return {
    from: () =>
      mirrored(
        release.address
          .replaceAll('{version}', version)
          .replaceAll('{number}', version.slice(1))
          .replaceAll('{architecture}', architecture),
      ),
    needs: [],
    run: async (build, { href }) => {
      build.say(`Fetching ${href}`)
      const source =
        release.checksum === undefined ? [href] : ['--archive', href, `${href}${release.checksum}`]
      await build.run([join(scripts, 'programs.sh'), build.out, ...source, ...release.programs])
    },
  }
}

/** @param reference `registry.k8s.io/pause:3.10.2` @returns `https://registry.k8s.io/pause:3.10.2`, or on a mirror */
const imageAddress = (reference: string): URL | undefined => {
  const mirror = mirrorOf('LAB_REGISTRY')
  if (mirror === 'no') return undefined
  if (!mirror) return new URL(`https://${reference}`)
  return new URL(`${mirror.href.replace(/\/$/, '')}${reference.slice(reference.indexOf('/'))}`)
}

/**
 * An image as its registry has it, in `image.tar`. `LAB_REGISTRY`: `no` never asks, a registry is asked instead, for
 * the same path: `mirror.example:5000/coredns/coredns:v1.14.2`; with `http://` before it, without TLS.
 */
export const publishedImage = (reference: string, architecture: Architecture): Fetch => ({
  from: () => imageAddress(reference),
  needs: [registryClient],
  run: async (build, { host, pathname, protocol }) => {
    build.say(`Pulling ${host}${pathname}`)
    const script = join(scripts, 'image.sh')
    const tls = String(protocol === 'https:')
    const command = ['bash', '/lab/image.sh', `${host}${pathname}`, reference, architecture, tls]
    await build.run(
      await enter(build, command, { root: registryClient, binds: [`${script}:/lab/image.sh:ro`] }),
      { environment: { HOME: '/tmp' } },
    )
  },
})
