/**
 * The power switches of a lab as Redfish, the interface of servers' management controllers: programs inside the lab,
 * such as Pacemaker's fence_redfish, switch machines off and on as they would real ones. Only what they need is
 * implemented: the service root, the systems, their power states, and ComputerSystem.Reset (DMTF DSP0266).
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { Identity } from './certificate.js'
import { jsonOf } from './requests.js'

export interface RedfishAccess {
  readonly username: string
  readonly password: string
}

/** What the service is made of, and its address. */
export type RedfishService = RedfishAccess & Identity

/** The HTTPS port: the default of management controllers. */
export const redfishPort = 443

/** @returns undefined if it is not valid */
export const redfishService = (value: unknown): RedfishService | undefined => {
  const { username, password, key, certificate } = (value ?? {}) as Partial<Record<string, unknown>>
  return typeof username === 'string' &&
    typeof password === 'string' &&
    password !== '' &&
    typeof key === 'string' &&
    typeof certificate === 'string'
    ? { username, password, key, certificate }
    : undefined
}

/** The switches. Each returns when it is done: a machine that was switched off is off. */
export interface Switches {
  /** Machines that can be switched, and whether they are on. */
  readonly list: () => readonly { readonly name: string; readonly on: boolean }[]
  readonly on: (name: string) => Promise<void>
  readonly off: (name: string) => Promise<void>
}

const root = '/redfish/v1'

/** Bytes of a request's body. */
const longestBody = 4096

/** The supported reset types. No program in the machine would react to a polite request, so all of them are forced. */
const resets: Readonly<Record<string, (switches: Switches, name: string) => Promise<void>>> = {
  On: ({ on }, name) => on(name),
  ForceOn: ({ on }, name) => on(name),
  ForceOff: ({ off }, name) => off(name),
  ForceRestart: async ({ on, off }, name) => {
    await off(name)
    await on(name)
  },
  PowerCycle: async ({ on, off }, name) => {
    await off(name)
    await on(name)
  },
}

/** A response other than success, in the form of Redfish. */
class Refusal extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/** HTTP Basic, compared in constant time. */
const isLetIn = ({ username, password }: RedfishAccess, header: string | undefined): boolean =>
  timingSafeEqual(
    digest(header ?? ''),
    digest(`Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`),
  )

const serviceRoot = {
  '@odata.id': root,
  '@odata.type': '#ServiceRoot.v1_5_0.ServiceRoot',
  Id: 'RootService',
  Name: 'Power switches of a lab',
  RedfishVersion: '1.6.0',
  Systems: { '@odata.id': `${root}/Systems` },
}

const systemOf = ({ name, on }: { readonly name: string; readonly on: boolean }): object => ({
  '@odata.id': `${root}/Systems/${name}`,
  '@odata.type': '#ComputerSystem.v1_5_0.ComputerSystem',
  Id: name,
  Name: name,
  HostName: name,
  SystemType: 'Virtual',
  PowerState: on ? 'On' : 'Off',
  Status: { State: on ? 'Enabled' : 'Disabled' },
  Actions: {
    '#ComputerSystem.Reset': {
      target: `${root}/Systems/${name}/Actions/ComputerSystem.Reset`,
      'ResetType@Redfish.AllowableValues': Object.keys(resets),
    },
  },
})

const bodyOf = (request: IncomingMessage): Promise<unknown> =>
  jsonOf(
    request,
    longestBody,
    (status, message) => new Refusal(status, status === 413 ? 'GeneralError' : 'MalformedJSON', message),
  )

const answerTo = async (
  request: IncomingMessage,
  access: RedfishAccess,
  switches: Switches,
): Promise<object | undefined> => {
  const path = (request.url ?? '/').split('?', 1)[0]?.replace(/\/+$/, '') ?? ''
  const reads = request.method === 'GET' || request.method === 'HEAD'
  // By the standard, the service root needs no authentication.
  if (path === '/redfish' && reads) return { v1: `${root}/` }
  if (path === root && reads) return serviceRoot
  if (!isLetIn(access, request.headers.authorization))
    throw new Refusal(401, 'NoValidSession', 'a user name and a password are required')
  const systems = switches.list()
  if (path === `${root}/Systems` && reads)
    return {
      '@odata.id': path,
      '@odata.type': '#ComputerSystemCollection.ComputerSystemCollection',
      Name: 'Machines',
      'Members@odata.count': systems.length,
      Members: systems.map(({ name }) => ({ '@odata.id': `${root}/Systems/${name}` })),
    }
  const [, name, action] =
    /^\/redfish\/v1\/Systems\/([a-z0-9-]{1,63})(\/Actions\/ComputerSystem\.Reset)?$/.exec(path) ?? []
  const system = systems.find((each) => each.name === name)
  if (!system) throw new Refusal(404, 'ResourceMissingAtURI', 'no such resource')
  if (action === undefined && reads) return systemOf(system)
  if (action === undefined || request.method !== 'POST')
    throw new Refusal(405, 'OperationNotAllowed', 'method not allowed')
  const wanted = (await bodyOf(request)) as { ResetType?: unknown } | null
  const reset =
    typeof wanted?.ResetType === 'string' && Object.hasOwn(resets, wanted.ResetType)
      ? resets[wanted.ResetType]
      : undefined
  if (!reset)
    throw new Refusal(
      400,
      'ActionParameterValueNotInList',
      `ResetType: expected one of ${Object.keys(resets).join(', ')}`,
    )
  await reset(switches, system.name)
  return undefined
}

/** Handles the requests of an HTTPS server. */
const handler =
  (access: RedfishAccess, switches: Switches, failed: (what: string, error: unknown) => void) =>
  (request: IncomingMessage, response: ServerResponse): void => {
    const say = (status: number, value?: object): void => {
      response.writeHead(status, {
        'content-type': 'application/json; charset=utf-8',
        'odata-version': '4.0',
        ...(status === 401 ? { 'www-authenticate': 'Basic realm="lab"' } : {}),
        // The rest of a refused body is not read.
        ...(status >= 400 ? { connection: 'close' } : {}),
      })
      response.end(value === undefined ? undefined : JSON.stringify(value))
    }
    answerTo(request, access, switches).then(
      (value) => {
        say(value === undefined ? 204 : 200, value)
      },
      (error: unknown) => {
        if (response.headersSent) return void response.destroy()
        const refusal = error instanceof Refusal ? error : undefined
        if (!refusal) failed(`${request.method ?? ''} ${request.url ?? ''}`, error)
        say(refusal?.status ?? 500, {
          error: {
            code: `Base.1.0.${refusal?.code ?? 'InternalError'}`,
            message: refusal?.message ?? 'the switch could not be used',
          },
        })
      },
    )
  }

/**
 * The service as an HTTPS server that does not listen yet.
 * @param failed called with internal errors; a client learns only that there was one
 */
export const redfishServer = (
  { key, certificate, ...access }: RedfishService,
  switches: Switches,
  failed: (what: string, error: unknown) => void,
): Server => {
  const server = createServer(
    { key, cert: certificate, minVersion: 'TLSv1.2' },
    handler(access, switches, failed),
  )
  // Machines are not trusted: a silent connection is not waited for.
  server.headersTimeout = 5000
  server.requestTimeout = 30_000
  server.keepAliveTimeout = 5000
  server.maxConnections = 64
  return server
}
