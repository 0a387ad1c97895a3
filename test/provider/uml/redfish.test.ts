/** The power switches as programs in the lab see them: over HTTPS, with the lab's own certificate. */
import { X509Certificate } from 'node:crypto'
import { request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { selfSigned } from '../../../src/provider/uml/certificate.js'
import { redfishServer, redfishService } from '../../../src/provider/uml/redfish.js'

const identity = selfSigned('power switches of test', '127.0.0.1')
const access = { username: 'lab', password: 'a secret' }

let on: Record<string, boolean>
let did: string[]
let complaints: unknown[]
let server: ReturnType<typeof redfishServer>

beforeEach(async () => {
  on = { target1: true, target2: false }
  did = []
  complaints = []
  const turn = (name: string, to: boolean): Promise<void> => {
    if (name === 'target2' && to) return Promise.reject(new Error('/a/path of this host'))
    did.push(`${name} ${to ? 'on' : 'off'}`)
    on[name] = to
    return Promise.resolve()
  }
  server = redfishServer(
    { ...access, ...identity },
    {
      list: () => Object.entries(on).map(([name, is]) => ({ name, on: is })),
      on: (name) => turn(name, true),
      off: (name) => turn(name, false),
    },
    (_, error) => complaints.push(error),
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

interface Answer {
  readonly status: number | undefined
  readonly body: Record<string, unknown>
}

const ask = (
  method: string,
  path: string,
  { body, auth = `${access.username}:${access.password}` }: { body?: string; auth?: string } = {},
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const asked = request(
      {
        host: '127.0.0.1',
        port: (server.address() as AddressInfo).port,
        method,
        path,
        ca: identity.certificate,
        ...(auth === '' ? {} : { auth }),
      },
      (response) => {
        let text = ''
        response.on('data', (chunk: Buffer) => (text += chunk.toString()))
        response.on('end', () => {
          resolve({
            status: response.statusCode,
            body: text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
          })
        })
      },
    )
    asked.on('error', reject)
    asked.end(body)
  })

const system = '/redfish/v1/Systems/target1'
const reset = `${system}/Actions/ComputerSystem.Reset`

describe('the certificate', () => {
  it('the certificate of the Redfish service is self-signed for the address, valid from yesterday for 20 years', () => {
    const certificate = new X509Certificate(identity.certificate)
    expect(certificate.verify(certificate.publicKey)).toBe(true)
    expect(certificate.checkIssued(certificate)).toBe(true)
    expect(certificate.subject).toBe('CN=power switches of test')
    expect(certificate.checkIP('127.0.0.1')).toBe('127.0.0.1')
    expect(certificate.checkIP('127.0.0.2')).toBeUndefined()
    const days = (date: string) => Math.round((Date.parse(date) - Date.now()) / 86_400_000)
    expect(days(certificate.validFrom)).toBe(-1)
    expect(days(certificate.validTo)).toBe(7300)
  })
})

describe('the Redfish service', () => {
  it('the Redfish service leads from its root, which anybody may read, to the power state of each machine', async () => {
    const top = await ask('GET', '/redfish', { auth: '' })
    expect(top.body).toEqual({ v1: '/redfish/v1/' })
    const root = await ask('GET', '/redfish/v1/', { auth: '' })
    expect(root.body).toMatchObject({ Systems: { '@odata.id': '/redfish/v1/Systems' } })
    const systems = await ask('GET', '/redfish/v1/Systems')
    expect(systems.body).toMatchObject({
      'Members@odata.count': 2,
      Members: [{ '@odata.id': system }, { '@odata.id': '/redfish/v1/Systems/target2' }],
    })
    expect((await ask('GET', system)).body).toMatchObject({
      PowerState: 'On',
      Actions: { '#ComputerSystem.Reset': { target: reset } },
    })
    expect((await ask('GET', '/redfish/v1/Systems/target2')).body).toMatchObject({ PowerState: 'Off' })
  })

  it.each([
    ['ForceOff', ['target1 off']],
    ['On', ['target1 on']],
    ['ForceRestart', ['target1 off', 'target1 on']],
  ])('the Redfish service does %s, and answers when it is done', async (type, done) => {
    const { status } = await ask('POST', reset, { body: JSON.stringify({ ResetType: type }) })
    expect(status).toBe(204)
    expect(did).toEqual(done)
  })

  it.each([
    ['no name', { auth: '' }, 401],
    ['a wrong password', { auth: 'lab:another' }, 401],
    ['a wrong user', { auth: `root:${access.password}` }, 401],
    ['no JSON', { body: '{' }, 400],
    ['an action that does not exist', { body: '{"ResetType":"GracefulShutdown"}' }, 400],
    ['a property of every object', { body: '{"ResetType":"constructor"}' }, 400],
    ['null', { body: 'null' }, 400],
    ['a body that is far too long', { body: JSON.stringify({ ResetType: 'x'.repeat(5000) }) }, 413],
  ])('the Redfish service switches nothing for %s', async (_, options, status) => {
    expect((await ask('POST', reset, options)).status).toBe(status)
    expect(did).toEqual([])
  })

  it('the Redfish service knows no other machine and no other method', async () => {
    expect((await ask('GET', '/redfish/v1/Systems/target3')).status).toBe(404)
    expect((await ask('GET', '/redfish/v1/Systems/../Systems/target1x')).status).toBe(404)
    expect((await ask('DELETE', system)).status).toBe(405)
    expect((await ask('GET', reset)).status).toBe(405)
  })

  it('the Redfish service tells a client that a switch failed, but tells only the lab why', async () => {
    const { status, body } = await ask('POST', reset.replace('target1', 'target2'), {
      body: '{"ResetType":"On"}',
    })
    expect(status).toBe(500)
    expect(JSON.stringify(body)).not.toContain('/a/path')
    expect(complaints).toHaveLength(1)
  })

  it('the Redfish service can be made only of a user, a password, a key and a certificate', () => {
    expect(redfishService({ ...access, ...identity })).toEqual({ ...access, ...identity })
    for (const wrong of [undefined, null, 7, {}, { ...access }, { ...access, ...identity, password: '' }])
      expect(redfishService(wrong)).toBeUndefined()
  })
})
