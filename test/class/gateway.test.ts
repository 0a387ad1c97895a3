/** The gateway over HTTPS, without seats: what it answers to whom. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request } from 'node:https'
import type { IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { WebSocket } from 'ws'
import type { ClassFile } from '../../src/class/class.js'
import { type Gateway, openGateway } from '../../src/class/gateway.js'
import { Keeper } from '../../src/class/keeper.js'

const wanted = {
  lab: 'iscsi',
  until: new Date(Date.now() + 3_600_000).toISOString(),
  language: 'en',
  secret: 'a secret',
  teacher: 'garlic-raven-onion-otter',
  seats: [
    { id: '01', token: 'maple-otter-clock-garden' },
    { id: '02', token: 'acorn-basil-comet-hotel' },
  ],
} as unknown as ClassFile

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

let folder: string
let gateway: Gateway
let port: number

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gateway-'))
  vi.stubEnv('LAB_CLASSES', folder)
  const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1']
  execFileSync('openssl', ['req', '-x509', ...curve, ...names, '-keyout', key, '-out', cert], {
    stdio: 'ignore',
  })
  gateway = openGateway(new Keeper(wanted), {
    key: readFileSync(key, 'utf8'),
    cert: readFileSync(cert, 'utf8'),
  })
  await gateway.app.listen({ host: '127.0.0.1', port: 0 })
  ;({ port } = gateway.app.server.address() as AddressInfo)
})

afterAll(async () => {
  await gateway.close()
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true })
})

const ask = (path: string, headers: Record<string, string> = {}): Promise<Answer> =>
  new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, headers, rejectUnauthorized: false }, (response) => {
      let text = ''
      response.on('data', (data: Buffer) => (text += data.toString()))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
    })
      .on('error', reject)
      .end()
  })

const cookieOf = async (token: string): Promise<{ readonly cookie: string }> => {
  const { headers } = await ask(`/${token}`)
  return { cookie: headers['set-cookie']?.[0]?.split(';')[0] ?? '' }
}

/** The status of a refused request for a terminal; 101 if it is accepted, and then it sends the text. */
const openSocket = (path: string, headers: Record<string, string>, text = '{}'): Promise<number> =>
  new Promise((resolve) => {
    const socket = new WebSocket(`wss://127.0.0.1:${String(port)}${path}`, {
      headers,
      rejectUnauthorized: false,
    })
    socket.on('unexpected-response', (_, response) => resolve(response.statusCode ?? 0))
    socket.on('error', () => undefined)
    socket.on('open', () => socket.send(text))
    socket.on('close', () => resolve(101))
  })

describe('the gateway of a class', () => {
  it('answers nothing without a token, not even that a page exists', async () => {
    for (const path of ['/', '/page/desk', '/page/board', '/board', '/board/events', '/me', '/files/desk.js'])
      expect((await ask(path)).status, path).toBe(404)
    expect((await ask('/NOTATOKEN')).status).toBe(404)
  })

  it('leads a student to the desk, and the teacher to the board', async () => {
    const student = await ask('/maple-otter-clock-garden')
    expect(student).toMatchObject({ status: 303, headers: { location: '/page/desk' } })
    expect(student.headers['set-cookie']?.[0]).toMatch(/; Path=\/; Secure; HttpOnly; SameSite=Strict$/)
    expect(await ask('/garlic-raven-onion-otter')).toMatchObject({
      status: 303,
      headers: { location: '/page/board' },
    })
  })

  it('shows a student the desk and its own state, but not the board', async () => {
    const cookie = await cookieOf('maple-otter-clock-garden')
    expect(JSON.parse((await ask('/me', cookie)).text)).toMatchObject({ who: '01', hand: false })
    const desk = await ask('/page/desk', cookie)
    expect(desk.status).toBe(200)
    expect(desk.headers).toMatchObject({
      'content-security-policy': expect.stringContaining("default-src 'none'") as string,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    })
    for (const path of ['/page/board', '/board', '/board/events'])
      expect((await ask(path, cookie)).status, path).toBe(404)
  })

  it('serves every file that its pages load', async () => {
    const cookie = await cookieOf('garlic-raven-onion-otter')
    for (const name of ['desk', 'board']) {
      const { text } = await ask(`/page/${name}`, cookie)
      const files = [...text.matchAll(/(?:src|href)="(\/files\/[^"]+)"/g)].map(([, path = '']) => path)
      expect(files.length).toBeGreaterThan(1)
      for (const path of files) expect((await ask(path, cookie)).status, path).toBe(200)
    }
  })

  it('shows the teacher every seat', async () => {
    const { text } = await ask('/board', await cookieOf('garlic-raven-onion-otter'))
    expect(JSON.parse(text)).toMatchObject({
      lab: 'iscsi',
      seats: [
        { id: '01', hand: false, windows: 0 },
        { id: '02', hand: false, windows: 0 },
      ],
    })
  })

  it('refuses a terminal to strangers, to the pages of other sites, and at a seat that does not exist', async () => {
    const [student, teacher] = [
      await cookieOf('maple-otter-clock-garden'),
      await cookieOf('garlic-raven-onion-otter'),
    ]
    expect(await openSocket('/terminal', {})).toBe(404)
    expect(await openSocket('/elsewhere', student)).toBe(404)
    expect(await openSocket('/terminal', { ...student, origin: 'https://elsewhere.example' })).toBe(404)
    expect(await openSocket('/terminal?seat=99', teacher)).toBe(404)
  })

  it('continues after a message from a browser that makes no sense', async () => {
    const cookie = await cookieOf('maple-otter-clock-garden')
    for (const text of ['null', '[]', '"x"', '{', '{"columns":"many","rows":-1}'])
      expect(await openSocket('/terminal', cookie, text)).toBe(101)
    expect((await ask('/me', cookie)).status).toBe(200)
  })
})
