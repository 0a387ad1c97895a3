/**
 * A lab from a bundle: made once, served, copied into an empty cache, damaged in transit, and installed without npm.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { once } from 'node:events'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cli } from './lab.js'

let folder = ''
let maker = ''
const servers: Server[] = []
const inFolder = (...names: readonly string[]): string => join(folder, ...names)
/** LAB_BUNDLE: one that was made earlier, because that takes minutes. */
const ready = process.env['LAB_BUNDLE']
const inBundle = (...names: readonly string[]): string => join(ready ?? inFolder('bundle'), ...names)

const lab = async (words: readonly string[], env: Readonly<Record<string, string>>, program = cli) => {
  const {
    exitCode = 128,
    stdout,
    stderr,
  } = await execa(process.execPath, [program, ...words], {
    env: { NO_COLOR: '1', LAB_STATE: inFolder('state'), ...env },
    reject: false,
    stdin: 'ignore',
    cwd: folder,
  })
  return { exitCode, stdout, stderr, all: `lab ${words.join(' ')}\n${stdout}\n${stderr}` }
}

/** Serves the bundle like any web server. @param damage whether to damage the answer to a request */
const serve = async (
  damage: (path: string, times: number) => boolean,
): Promise<{ readonly url: string; readonly asked: Map<string, number> }> => {
  const asked = new Map<string, number>()
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '/')
    const times = (asked.get(path) ?? 0) + 1
    asked.set(path, times)
    readFile(inBundle(path)).then(
      (data) => {
        if (damage(path, times)) data[data.length >> 1]! ^= 1
        response.end(data)
      },
      () => response.writeHead(404).end(),
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  servers.push(server)
  const address = server.address()
  return { url: `http://127.0.0.1:${String(typeof address === 'object' ? address?.port : 0)}`, asked }
}

describe('a bundle of iscsi', () => {
  beforeAll(async () => {
    folder = await mkdtemp('/var/tmp/lab-e2e-')
    if (ready === undefined) {
      const made = await lab(['bundle', 'make', 'iscsi', '--into', inBundle()], {})
      expect(made.exitCode, made.all).toBe(0)
    }
    const checked = await lab(['bundle', 'check', inBundle()], {})
    maker = /SHA256:\S+/.exec(checked.stdout)?.[0] ?? ''
  }, 900_000)
  afterAll(async () => {
    for (const server of servers) server.close()
    await lab(['down', 'iscsi', '--wait'], {})
    await rm(folder, { recursive: true, force: true })
  }, 120_000)

  it('a bundle passes lab bundle check, and lab bundle make prints its maker', async () => {
    const { exitCode, stdout, all } = await lab(['bundle', 'check', inBundle()], {})
    expect(exitCode, all).toBe(0)
    expect(stdout).toContain(maker)
  }, 120_000)

  it('lab up --offline names every part that is missing without the bundle', async () => {
    const { exitCode, all } = await lab(['up', 'iscsi', '--offline'], { LAB_CACHE: inFolder('empty') })
    expect(exitCode).toBe(3)
    expect(all).toMatch(/kernel/)
    expect(all).toMatch(/base disk|base-disk/)
    expect((await lab(['list', '-o', 'json'], {})).stdout).not.toContain('"running"')
  }, 60_000)

  it('a bundle brings a lab up over HTTP into an empty cache, and only a chunk that was damaged on the way is fetched again', async () => {
    let damaged = ''
    const { url, asked } = await serve((path, times) => {
      if (damaged === '' && path.startsWith('/chunks/') && times === 1) damaged = path
      return path === damaged && times === 1
    })
    const began = performance.now()
    const env = { LAB_CACHE: inFolder('cache'), LAB_PARTS: url }
    const up = await lab(['up', 'iscsi', '--offline', '--maker', maker], env)
    expect(up.exitCode, up.all).toBe(0)
    console.log(`iscsi from an empty cache to verified: ${((performance.now() - began) / 1000).toFixed(0)} s`)
    const chunks = [...asked].filter(([path]) => path.startsWith('/chunks/'))
    expect(damaged).not.toBe('')
    expect(chunks.length).toBeGreaterThan(10)
    expect(chunks.filter(([, times]) => times !== 1)).toEqual([[damaged, 2]])
    const verified = await lab(['verify', 'iscsi'], env)
    expect(verified.exitCode, verified.all).toBe(0)
    expect((await lab(['down', 'iscsi'], env)).exitCode).toBe(0)
    // Everything is here now: neither the bundle nor a network is needed.
    expect((await lab(['prepare', 'iscsi', '--offline'], { LAB_CACHE: inFolder('cache') })).exitCode).toBe(0)
  }, 400_000)

  it('lab up names a chunk that is always damaged, and later fetches only that one', async () => {
    let damaged = ''
    const broken = await serve((path, times) => {
      if (path.startsWith('/chunks/') && times === 1 && damaged === '' && broken.asked.size > 12)
        damaged = path
      return path === damaged
    })
    const env = { LAB_CACHE: inFolder('resumed') }
    const failed = await lab(['prepare', 'iscsi', '--offline', '--from', broken.url, '--maker', maker], env)
    expect(failed.exitCode).not.toBe(0)
    expect(failed.stderr).toContain(damaged.split('/').at(-1))
    const arrived = [...broken.asked.keys()].filter((path) => path.startsWith('/chunks/') && path !== damaged)
    const mended = await serve(() => false)
    const again = await lab(['prepare', 'iscsi', '--offline', '--from', mended.url, '--maker', maker], env)
    expect(again.exitCode, again.all).toBe(0)
    expect([...mended.asked.keys()]).toContain(damaged)
    expect(arrived.filter((path) => mended.asked.has(path)).length).toBeLessThanOrEqual(4)
  }, 300_000)

  it('a bundle is used only if its maker is trusted', async () => {
    const env = { LAB_CACHE: inFolder('other') }
    const words = ['prepare', 'iscsi', '--offline', '--from', inBundle()]
    const other = await lab([...words, '--maker', 'SHA256:AAAA'], env)
    expect(other.exitCode).not.toBe(0)
    for (const from of ['http://127.0.0.1:9', inFolder('nowhere')]) {
      const { exitCode, stderr } = await lab(['prepare', 'iscsi', '--offline', '--from', from], env)
      expect(exitCode).not.toBe(0)
      expect(stderr).toContain(from)
    }
  }, 120_000)

  it('a bundle installs lab itself without a network, and that lab takes its parts from the same folder', async () => {
    const home = inFolder('home')
    const installed = await execa('sh', [inBundle('lab', 'install.sh'), inFolder('installed')], {
      // Without npm's cache, and without a registry.
      env: { HOME: home, npm_config_cache: inFolder('npm'), npm_config_registry: 'http://127.0.0.1:9' },
      reject: false,
      stdin: 'ignore',
    })
    expect(installed.exitCode, `${installed.stdout}\n${installed.stderr}`).toBe(0)
    expect(installed.stderr).not.toContain('EBADENGINE')
    const program = inFolder('installed', 'dist', 'cli.js')
    const env = { HOME: home, LAB_CACHE: inFolder('installed-cache') }
    const up = await lab(['up', 'iscsi', '--offline', '--from', inBundle(), '--maker', maker], env, program)
    expect(up.exitCode, up.all).toBe(0)
    expect((await lab(['verify', 'iscsi'], env, program)).exitCode).toBe(0)
    expect((await lab(['down', 'iscsi'], env, program)).exitCode).toBe(0)
  }, 400_000)
})
