/** The requests to the supervisor, and its answers. No part of a request is used before it was checked. */
import { type IncomingMessage } from 'node:http'
import { type Bind } from './confine.js'

export interface StartRequest {
  /** The program and its arguments, as the machine's root folder has them: words without spaces. */
  readonly argv: readonly string[]
  /** The CPU of the host that it runs on. */
  readonly cpu: number
  /** Console output is appended to this file. */
  readonly console: string
  /** Names of the interfaces on the bridge and of the machine, new at every start; and its address there. */
  readonly link: readonly [bridgeEnd: string, machineEnd: string, mac: string]
  /** All that it sees of the host. */
  readonly binds: readonly Bind[]
  /** The user of the host that it runs as. Undefined: the user of the supervisor. */
  readonly user?: number
}

export interface RunningMachine {
  readonly name: string
  readonly running: boolean
  /** As requested, with the address of its interface last. */
  readonly argv: readonly string[]
  /** Milliseconds since the epoch; different for every run. */
  readonly started: number
  /** How it ended: `exit code 1`, `SIGKILL`. */
  readonly ended?: string
  /** All its processes are stopped. */
  readonly paused?: boolean
}

/** A request that cannot be fulfilled, and why. */
export class Refusal extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** The size limit of a request in bytes: that of a machine with many LUNs has a few thousand. */
const longestBody = 1024 ** 2

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isWord = (value: unknown): value is string => typeof value === 'string' && /^[!-~]{1,4096}$/.test(value)

const isPath = (value: unknown): value is string =>
  typeof value === 'string' && value.startsWith('/') && value.length < 4096 && !value.includes('\0')

const isWhole = (value: unknown, most: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most

export const isHost = (value: unknown): value is string =>
  typeof value === 'string' && /^[A-Za-z0-9.:_-]{1,253}$/.test(value)

export const isPort = (value: unknown): value is number => isWhole(value, 65_535) && value > 0

const isBind = (value: unknown): value is Bind =>
  isRecord(value) &&
  isPath(value['from']) &&
  typeof value['to'] === 'string' &&
  /^(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$/.test(value['to']) &&
  (value['writable'] === undefined || typeof value['writable'] === 'boolean')

/** @throws Refusal */
export const startRequest = (value: unknown): StartRequest => {
  const wrong = (field: string): never => {
    throw new Refusal(400, `${field}: not valid in a StartRequest`)
  }
  if (!isRecord(value)) return wrong('body')
  const { argv, cpu, console, link, binds, user } = value
  if (!Array.isArray(argv) || argv.length === 0 || !argv.every(isWord)) return wrong('argv')
  if (!isWhole(cpu, 65_535)) return wrong('cpu')
  if (!isPath(console)) return wrong('console')
  if (!Array.isArray(link) || link.length !== 3 || !link.every(isWord)) return wrong('link')
  const [bridgeEnd = '', machineEnd = '', mac = ''] = link
  if (![bridgeEnd, machineEnd].every((name) => /^[a-z][a-z0-9]{0,14}$/.test(name))) return wrong('link')
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) return wrong('link')
  if (!Array.isArray(binds) || !binds.every(isBind)) return wrong('binds')
  if (user !== undefined && !(isWhole(user, 2 ** 32 - 2) && user > 0)) return wrong('user')
  return {
    argv,
    cpu,
    console,
    link: [bridgeEnd, machineEnd, mac],
    binds,
    ...(user === undefined ? {} : { user }),
  }
}

/** @throws Refusal */
export const forwardRequest = (value: unknown): { host: string; port: number } => {
  if (!isRecord(value) || !isHost(value['host']) || !isPort(value['port']))
    throw new Refusal(400, 'expected {host, port}')
  return { host: value['host'], port: value['port'] }
}

/** The JSON of a request. @throws what `refuse` returns, with the status of the answer */
export const jsonOf = async (
  request: IncomingMessage,
  longest: number,
  refuse: (status: 400 | 413, message: string) => Error,
): Promise<unknown> => {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request) {
    size += (chunk as Buffer).length
    if (size > longest) throw refuse(413, `longer than ${String(longest)} bytes`)
    chunks.push(chunk as Buffer)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown
  } catch {
    throw refuse(400, 'the body is not JSON')
  }
}

/** The JSON of a request. @throws Refusal */
export const bodyOf = (request: IncomingMessage): Promise<unknown> =>
  jsonOf(request, longestBody, (status, message) => new Refusal(status, message))

/** The subject of a request: a route such as `PUT machines NAME`, the machine's name, and which run of it. */
export interface Asked {
  readonly route: string
  readonly name?: string
  /** As {@link RunningMachine.started}. */
  readonly run?: number
}

/** @throws Refusal */
export const asked = ({ method = '', url = '/' }: IncomingMessage): Asked => {
  const [path = '', query] = url.split('?', 2)
  const [, what = '', name, ...more] = path.split('/')
  if (more.length > 0 || !path.startsWith('/')) throw new Refusal(404, 'no such path')
  // Names of machines, and nothing that would have to be decoded.
  if (name !== undefined && !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name))
    throw new Refusal(400, 'not the name of a machine')
  const run = query === undefined ? undefined : /^started=(\d{1,15})$/.exec(query)?.[1]
  if (query !== undefined && run === undefined) throw new Refusal(400, 'expected ?started=MILLISECONDS')
  const route = `${method} ${what}${name === undefined ? '' : ' NAME'}`
  if (run !== undefined && route !== 'DELETE machines NAME')
    throw new Refusal(400, 'only DELETE /machines/NAME takes a run')
  return {
    route,
    ...(name === undefined ? {} : { name }),
    ...(run === undefined ? {} : { run: Number(run) }),
  }
}
