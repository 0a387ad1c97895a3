/**
 * For maintainers, `npm run digests`: fetches the published files of the pinned versions for every architecture, and
 * writes their digests into parts.yaml. Everything else only reads them.
 */
import { createHash } from 'node:crypto'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LabError } from '../error.js'
import { architectures } from './architecture.js'
import { partsFolder, type Pins, pins } from './pins.js'
import { imageAddress, mirrored, releasedFiles } from './upstream.js'

const failed = (url: URL, why: string): LabError =>
  new LabError('upstream', `${url.href}: ${why}`, { hint: 'try it where this address can be reached' })

/** Why nothing answered, according to Node. */
const reasonOf = (error: unknown): string =>
  error instanceof Error
    ? [error.message, error.cause instanceof Error ? error.cause.message : ''].filter(Boolean).join(': ')
    : String(error)

const ask = async (url: URL, headers: Readonly<Record<string, string>> = {}): Promise<Response> => {
  const response = await fetch(url, { headers }).catch((error: unknown) => {
    throw failed(url, reasonOf(error))
  })
  return response
}

const digestOfBody = async (url: URL, response: Response): Promise<string> => {
  if (!response.ok || !response.body) throw failed(url, `HTTP ${String(response.status)}`)
  const hash = createHash('sha256')
  for await (const chunk of response.body) hash.update(chunk as Uint8Array)
  return hash.digest('hex')
}

/** The digest of a file, which must also match the checksum next to it. */
const digestOfFile = async (address: string, checksum: string): Promise<string> => {
  const [url, beside] = [mirrored(address), mirrored(`${address}${checksum}`)]
  if (!url || !beside)
    throw new LabError('upstream', 'LAB_RELEASES=no: no release is looked up', { hint: 'unset LAB_RELEASES' })
  const digest = await digestOfBody(url, await ask(url))
  const said = (await (await ask(beside)).text()).trim().split(/\s/)[0]
  if (said !== digest) throw failed(url, `has sha256 ${digest}, but ${beside.href} says ${said ?? 'nothing'}`)
  return digest
}

const manifests = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ')

/** A token for anonymous access to a repository, if its registry demands one. */
const tokenFor = async (challenge: string): Promise<string> => {
  const of = (name: string): string => new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? ''
  const url = new URL(of('realm'))
  url.searchParams.set('service', of('service'))
  url.searchParams.set('scope', of('scope'))
  const { token, access_token: other } = (await (await ask(url)).json()) as Record<string, string>
  return token ?? other ?? ''
}

/** The digest of an image's manifest, or of its manifest list, which must cover every supported architecture. */
const digestOfImage = async (reference: string): Promise<string> => {
  const from = imageAddress(reference)
  if (!from)
    throw new LabError('upstream', 'LAB_REGISTRY=no: no registry is asked', { hint: 'unset LAB_REGISTRY' })
  const [, name = '', tag = ''] = /^\/(.*):([^:]*)$/.exec(from.pathname) ?? []
  // The registry of docker.io images has another host name.
  const host = from.host === 'docker.io' ? 'registry-1.docker.io' : from.host
  const url = new URL(`${from.protocol}//${host}/v2/${name}/manifests/${tag}`)
  let response = await ask(url, { accept: manifests })
  if (response.status === 401) {
    const token = await tokenFor(response.headers.get('www-authenticate') ?? '')
    response = await ask(url, { accept: manifests, authorization: `Bearer ${token}` })
  }
  if (!response.ok) throw failed(url, `HTTP ${String(response.status)}`)
  const body = Buffer.from(await response.arrayBuffer())
  const { manifests: list } = JSON.parse(body.toString('utf8')) as {
    manifests?: readonly { platform?: { architecture?: string } }[]
  }
  const lacking = architectures.filter(
    (architecture) => list?.every(({ platform }) => platform?.architecture !== architecture) ?? true,
  )
  if (lacking.length > 0) throw failed(url, `it is not for ${lacking.join(' and ')}`)
  return createHash('sha256').update(body).digest('hex')
}

/** What parts.yaml has to pin: addresses of files, each with the suffix of its checksum's address, and images. */
const wanted = (all: Pins): { files: Map<string, string>; images: readonly string[] } => {
  const files = new Map<string, string>()
  for (const id of Object.keys(all.releases))
    for (const architecture of architectures) {
      const version = all.modules[id]?.version ?? ''
      for (const { address } of releasedFiles(all, { id, version, architecture })?.files ?? [])
        files.set(address, all.releases[id]?.checksum ?? '.sha256')
    }
  return {
    files,
    images: all.images.filter(({ kind }) => kind === 'files').map(({ reference }) => reference),
  }
}

/**
 * Writes all digests into the last section of parts.yaml, or changes nothing.
 * @param say called with every request
 * @throws LabError if something is unavailable or does not match its checksum
 */
export const pinDigests = async ({
  file = join(partsFolder, 'parts.yaml'),
  all = pins(),
  say = (line: string): void => {
    // eslint-disable-next-line no-console -- it is a script's
    console.log(line)
  },
} = {}): Promise<void> => {
  const { files, images } = wanted(all)
  const digests = new Map<string, string>()
  for (const [address, checksum] of files) {
    say(address)
    digests.set(address, await digestOfFile(address, checksum))
  }
  for (const reference of images) {
    say(reference)
    digests.set(reference, await digestOfImage(reference))
  }
  const text = await readFile(file, 'utf8')
  const start = text.indexOf('\ndigests:\n')
  if (start < 0) throw new Error(`${file} has no section digests`)
  for (const [of, digest] of digests)
    if (all.digests[of] !== undefined && all.digests[of] !== digest)
      throw new LabError(
        'upstream',
        `${of} has sha256 ${digest}, pinned is ${all.digests[of]}: a release never changes`,
        {
          hint: 'find out why; if the new digest is right, remove the line from parts.yaml and try again',
        },
      )
  const lines = [...digests].map(([of, digest]) => `  ${of}: ${digest}\n`)
  await writeFile(`${file}.new`, `${text.slice(0, start)}\ndigests:\n${lines.join('')}`)
  await rename(`${file}.new`, file)
}
