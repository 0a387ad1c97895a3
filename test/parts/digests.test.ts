/** Upstreams on loopback, and a copy of parts.yaml into which their digests are written. */
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { copyFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { pinDigests } from '../../src/parts/digests.js'
import { partsFolder, pins, type Pins } from '../../src/parts/pins.js'
import { temporaryFolder } from '../helpers/folder.js'
import { setEnvironment } from '../provider/vagrant-tools.js'

const digestOf = (content: string): string => createHash('sha256').update(content).digest('hex')
const index = JSON.stringify({
  manifests: ['amd64', 'arm64', 's390x'].map((architecture) => ({ platform: { architecture } })),
})

let file = ''
let all: Pins
beforeEach(async () => {
  file = join(await temporaryFolder(), 'parts.yaml')
  await copyFile(join(partsFolder, 'parts.yaml'), file)
  all = structuredClone(pins())
  all.digests = {}
})

/** Each server returns the requested file, and requires a token before it returns an image. */
const serve = async (given: { checksum?: string; image?: string } = {}): Promise<void> => {
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    if (path.startsWith('/token')) {
      response.end(JSON.stringify({ token: path.includes('scope=pull') ? 'right' : 'wrong' }))
    } else if (path.startsWith('/v2/')) {
      if (request.headers.authorization === 'Bearer right') response.end(given.image ?? index)
      else
        response
          .writeHead(401, { 'www-authenticate': `Bearer realm="${address}/token",service="s",scope="pull"` })
          .end()
    } else {
      const [, of] = /^(.*)\.sha256(sum)?$/.exec(path) ?? []
      response.end(of === undefined ? path : `${given.checksum ?? digestOf(of)}  it\n`)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const address = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`
  setEnvironment({ LAB_RELEASES: address, LAB_REGISTRY: address })
}

const write = (): Promise<void> => pinDigests({ file, all, say: () => undefined })

describe('npm run digests', () => {
  it('npm run digests writes the digest of every file and image for every processor', async () => {
    await serve()
    await write()
    const before = await readFile(join(partsFolder, 'parts.yaml'), 'utf8')
    const after = await readFile(file, 'utf8')
    const start = '\ndigests:\n'
    expect(after.split(start)[0]).toBe(before.split(start)[0])
    const { digests } = parse(after, { merge: true }) as Pins
    const kubelet = 'dl.k8s.io/release/v1.36.3/bin/linux/arm64/kubelet'
    expect(digests[`https://${kubelet}`]).toBe(digestOf(`/${kubelet}`))
    expect(digests['registry.k8s.io/kube-proxy:v1.36.3']).toBe(digestOf(index))
    expect(digests['docker.io/rancher/local-path-provisioner:v0.0.30']).toBe(digestOf(index))
    // Seven programs and two archives, for two processors each; eight images.
    expect(Object.keys(digests)).toHaveLength(2 * (7 + 2) + 8)
  })

  it.each([
    { what: 'a file that does not match its checksum', given: { checksum: '0'.repeat(64) } },
    {
      what: 'an image that exists only for another processor',
      given: { image: index.replace('arm64', 'riscv64') },
    },
  ])('npm run digests writes nothing for $what', async ({ given }) => {
    await serve(given)
    await expect(write()).rejects.toMatchObject({ code: 'upstream' })
    expect(await readFile(file, 'utf8')).toBe(await readFile(join(partsFolder, 'parts.yaml'), 'utf8'))
  })

  it('npm run digests writes nothing when a release differs from the pinned one', async () => {
    await serve()
    all.digests['registry.k8s.io/pause:3.10.2'] = '0'.repeat(64)
    await expect(write()).rejects.toThrow(
      /pause:3.10.2 has sha256 \w{64}, pinned is 0{64}: a release never changes/,
    )
  })
})
