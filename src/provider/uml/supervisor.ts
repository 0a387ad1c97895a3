/**
 * The first process of a lab's namespaces (network, PID, mount; user where not root). It makes the lab's
 * bridge, starts and ends the machines, and carries TCP connections from the host into the lab's network.
 * Because it is PID 1 there, its end is the end of every machine: nothing can be left behind, and nothing but
 * `DELETE /` may end it: no request, however odd, and no number of them.
 *
 * Standard library only: it must start fast and stay small.
 *
 * Arguments: socket path, bridge address (CIDR), log. Descriptor 3 is a socket that listens on the *host's*
 * 127.0.0.1: it was opened before the namespaces were, and leads to the address given by `PUT /forward`.
 *
 * HTTP on the socket, which its owner alone can open. A request that is none of these, or that is not well-formed,
 * gets 400 or 404; what one asks of one machine is done in the order in which it was asked:
 *   GET /machines              RunningMachine[]
 *   GET /version               {version}: 2, since machines are confined
 *   PUT /machines/NAME         StartRequest: starts it unless it runs
 *   DELETE /machines/NAME      ends it at once (a power cut); answers when it is gone
 *   DELETE /machines/NAME?started=MS   only that run of it: a later one goes on
 *   PUT /paused/NAME           stops all its processes where they are; 409: it does not run
 *   DELETE /paused/NAME        lets them go on; 409: it does not run
 *   PUT /forward               {host, port}
 *   DELETE /                   ends everything
 *   CONNECT host:port          a tunnel into the lab's network
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  accessSync,
  chmodSync,
  constants as fileModes,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, createServer as createTcpServer, type Server, type Socket } from 'node:net'
import { constants } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { type Bind, confined } from './confine.js'
import { BoundedLog } from './console.js'
import { allProcesses, familyOf, lives } from './processes.js'

export interface StartRequest {
  /** The program and its arguments, as the machine's root folder has them: words without spaces. */
  readonly argv: readonly string[]
  /** The CPU of the host that it runs on. */
  readonly cpu: number
  /** Console output is appended to this file. */
  readonly console: string
  /** Names of the interfaces on the bridge and of the machine, made anew for every start; and its address there. */
  readonly link: readonly [bridgeEnd: string, machineEnd: string, mac: string]
  /** All that it sees of the host. */
  readonly binds: readonly Bind[]
  /** The host's user that it runs as. Absent: whoever runs the supervisor. */
  readonly user?: number
}

export interface RunningMachine {
  readonly name: string
  readonly running: boolean
  /** As it was asked for, the address of its interface last. */
  readonly argv: readonly string[]
  /** Milliseconds since the epoch; no two runs have the same. */
  readonly started: number
  /** How it ended: `exit code 1`, `SIGKILL`. */
  readonly ended?: string
  /** All its processes stand still. */
  readonly paused?: boolean
}

interface Entry extends StartRequest {
  readonly child: ChildProcess
  readonly started: number
  ended?: string
}

/** A request that cannot be done, and why. */
class Refusal extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const bridge = 'lab0'
/** Milliseconds to wait for a TCP answer of a machine that may be down: nobody sends a RST for it. */
const dialTimeout = 3000
/** Bytes of a request: that of a machine with many LUNs has some thousand. */
const longestBody = 1024 ** 2
/** Bytes of a console before it is moved aside: a boot prints 20 KiB. */
const consoleLimit = 4 * 1024 ** 2
const logLimit = 256 * 1024
/** Connections that have asked nothing yet: beyond these, the one that has waited longest is closed. */
const waitingConnections = 200

const ip = (...args: readonly string[]): void => {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** A shell's exit code in words: beyond 128 it stands for the signal that ended the program. */
const endingOf = (code: number): string =>
  Object.entries(constants.signals).find(([, number]) => number === code - 128)?.[0] ??
  `exit code ${String(code)}`

const setUpNetwork = (address: string): void => {
  ip('link', 'set', 'lo', 'up')
  ip('link', 'add', bridge, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0')
  ip('address', 'add', address, 'dev', bridge)
  ip('link', 'set', bridge, 'up')
}

const removeLink = (name: string): void => {
  try {
    ip('link', 'delete', name)
  } catch {
    // It is not there on the first start.
  }
}

/**
 * The device that machines open their end of the network with, without any capability: a tap belongs to a user.
 * Undefined: this host has none that they could open, and a machine gets a network namespace of its own instead.
 */
const tapDevice = (): string | undefined => {
  const attempt = (device: string, make: () => void): string | undefined => {
    try {
      make()
      ip('tuntap', 'add', 'dev', 'probe', 'mode', 'tap')
      ip('link', 'delete', 'probe')
      return device
    } catch {
      return undefined
    }
  }
  // Root makes one that the machines' users may open; the host's own may be for root alone.
  return (
    attempt('/dev/shm/tun', () => {
      execFileSync('mknod', ['-m', '666', '/dev/shm/tun', 'c', '10', '200'], { stdio: 'ignore' })
      accessSync('/dev/shm/tun', fileModes.R_OK | fileModes.W_OK)
    }) ??
    attempt('/dev/net/tun', () => {
      // Where machines run as the one user that there is here, what that one may is enough.
      const alone = /^\s*\d+\s+\d+\s+1\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'))
      if (!alone && (statSync('/dev/net/tun').mode & 0o6) !== 0o6) throw new Error('only root could open it')
      accessSync('/dev/net/tun', fileModes.R_OK | fileModes.W_OK)
    })
  )
}

const send = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal)
  } catch {
    // It ended while we looked.
  }
}

/** Descriptors that this process may have; each tunnel takes two. */
const openFiles = (): number =>
  Number(/^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 1024)

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isWord = (value: unknown): value is string => typeof value === 'string' && /^[!-~]{1,4096}$/.test(value)

const isPath = (value: unknown): value is string =>
  typeof value === 'string' && value.startsWith('/') && value.length < 4096 && !value.includes('\0')

const isWhole = (value: unknown, most: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most

const isHost = (value: unknown): value is string =>
  typeof value === 'string' && /^[A-Za-z0-9.:_-]{1,253}$/.test(value)

const isPort = (value: unknown): value is number => isWhole(value, 65_535) && value > 0

const isBind = (value: unknown): value is Bind =>
  isRecord(value) &&
  isPath(value['from']) &&
  typeof value['to'] === 'string' &&
  /^(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$/.test(value['to']) &&
  (value['writable'] === undefined || typeof value['writable'] === 'boolean')

/** @throws what is wrong with it */
const startRequest = (value: unknown): StartRequest => {
  const wrong = (field: string): never => {
    throw new Refusal(400, `${field}: not as a StartRequest has it`)
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

/** What it does for one machine, one after the other: a start waits for the end before it, and finds it gone. */
class Turns {
  private readonly last = new Map<string, Promise<unknown>>()

  take<T>(name: string, act: () => T | Promise<T>): Promise<T> {
    const turn = (this.last.get(name) ?? Promise.resolve()).then(act)
    const quiet = turn
      .catch(() => undefined)
      .then(() => {
        if (this.last.get(name) === quiet) this.last.delete(name)
      })
    this.last.set(name, quiet)
    return turn
  }
}

const main = (socketPath: string, address: string, logPath: string): void => {
  const machines = new Map<string, Entry>()
  const turns = new Turns()
  let forwardTo: { host: string; port: number } | undefined
  let lastStart = 0

  const log = new BoundedLog(logPath, logLimit)
  const say = (what: string, error: unknown): void => {
    try {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      log.write(Buffer.from(`${new Date().toISOString()} ${what}: ${text}\n`))
    } catch {
      // The disk is full: that is no reason to end the lab.
    }
  }

  setUpNetwork(address)
  const tap = tapDevice()

  /** Makes both ends anew, and says how the machine's kernel is told. */
  const plug = ([bridgeEnd, machineEnd, mac]: StartRequest['link'], user: number | undefined): string => {
    removeLink(bridgeEnd)
    if (tap === undefined) {
      ip('link', 'add', bridgeEnd, 'type', 'veth', 'peer', 'name', machineEnd)
    } else {
      ip('tuntap', 'add', 'dev', bridgeEnd, 'mode', 'tap', 'user', String(user ?? 0))
    }
    ip('link', 'set', bridgeEnd, 'master', bridge, 'up')
    const [transport, name] = tap === undefined ? ['raw', machineEnd] : ['tap', bridgeEnd]
    return `vec0:transport=${transport},ifname=${name},mac=${mac},depth=128,gro=1`
  }

  const start = (name: string, request: StartRequest): void => {
    const known = machines.get(name)
    if (known && known.ended === undefined) return
    const network = plug(request.link, request.user)
    const output = new BoundedLog(request.console, consoleLimit)
    const root = `/dev/shm/${name}`
    mkdirSync(root, { recursive: true })
    const { command, env } = confined([...request.argv, network], {
      root,
      binds: [
        { from: '/dev/null', to: '/dev/null', writable: true },
        ...(tap === undefined ? [] : [{ from: tap, to: '/dev/net/tun', writable: true }]),
        ...request.binds,
      ],
      ...(request.user === undefined ? {} : { user: request.user }),
      ...(tap === undefined ? { cable: request.link[1] } : {}),
    })
    // A PID namespace per machine: its first process ends, and the kernel ends all its helpers with it.
    // And a CPU: its kernel and its programs are processes that hand over to each other at every system call,
    // and never work at once. On one CPU that takes 11 microseconds, across two 14 to 32, as busy as they are.
    const child = spawn('taskset', ['--cpu-list', String(request.cpu), ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env,
    })
    const started = Math.max(Date.now(), lastStart + 1)
    lastStart = started
    const entry: Entry = { ...request, child, started }
    const keep = (text: Buffer): void => {
      try {
        output.write(text)
      } catch (error) {
        say(`console of ${name}`, error)
      }
    }
    child.stdout.on('data', keep).on('error', (error) => say(name, error))
    child.stderr.on('data', keep).on('error', (error) => say(name, error))
    child.on('error', (error) => {
      entry.ended ??= error.message
    })
    // Not `exit`: what it said last is in the log by now.
    child.on('close', (code, signal) => {
      entry.ended ??= signal ?? endingOf(code ?? 0)
      output.close()
    })
    machines.set(name, entry)
  }

  /** A machine's kernel makes processes all the time: it is asked again until no new one is found. */
  const signalAll = (entry: Entry | undefined, signal: 'SIGSTOP' | 'SIGCONT'): readonly number[] => {
    if (entry?.child.pid === undefined || entry.ended !== undefined) return []
    const done = new Set<number>()
    for (;;) {
      const fresh = familyOf(entry.child.pid).filter(({ pid }) => !done.has(pid))
      if (fresh.length === 0) return [...done]
      for (const { pid } of fresh) {
        done.add(pid)
        send(pid, signal)
      }
    }
  }

  /**
   * Ends a machine, and returns when none of its processes lives: one of them holds the lock of its disks. They
   * are stopped first. One that is only just starting may not yet be in its PID namespace, and would outlive it.
   */
  const end = async (name: string, run: number | undefined): Promise<void> => {
    const entry = machines.get(name)
    if (!entry || (run !== undefined && entry.started !== run)) return
    const family = signalAll(entry, 'SIGSTOP')
    for (const pid of family) send(pid, 'SIGKILL')
    while (family.some(lives)) await delay(5)
    machines.delete(name)
    rmSync(`/dev/shm/${name}`, { recursive: true, force: true })
  }

  const list = (): RunningMachine[] => {
    const all = allProcesses()
    const standsStill = ({ child, ended }: Entry): boolean => {
      const family = child.pid === undefined || ended !== undefined ? [] : familyOf(child.pid, all)
      return family.some(({ state }) => state === 'T') && family.every(({ state }) => /^[TtZX]$/.test(state))
    }
    return [...machines].map(([name, entry]) => ({
      name,
      running: entry.ended === undefined,
      argv: [...entry.argv, `mac=${entry.link[2]}`],
      started: entry.started,
      ...(entry.ended === undefined ? {} : { ended: entry.ended }),
      ...(standsStill(entry) ? { paused: true } : {}),
    }))
  }

  const body = async (request: IncomingMessage): Promise<unknown> => {
    const chunks: Buffer[] = []
    let size = 0
    for await (const chunk of request) {
      size += (chunk as Buffer).length
      if (size > longestBody) throw new Refusal(413, `longer than ${String(longestBody)} bytes`)
      chunks.push(chunk as Buffer)
    }
    try {
      return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown
    } catch {
      throw new Refusal(400, 'the body is not JSON')
    }
  }

  /** `what`, the machine's name, and which run of it. */
  const asked = (url: string): { what: string; name?: string; run?: number } => {
    const [path = '', query] = url.split('?', 2)
    const [, what = '', name, ...more] = path.split('/')
    if (more.length > 0 || !path.startsWith('/')) throw new Refusal(404, 'no such path')
    // Names of machines, and nothing that would have to be decoded.
    if (name !== undefined && !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name))
      throw new Refusal(400, 'no name of a machine')
    const run = query === undefined ? undefined : /^started=(\d{1,15})$/.exec(query)?.[1]
    if (query !== undefined && run === undefined) throw new Refusal(400, 'wanted ?started=MILLISECONDS')
    return {
      what,
      ...(name === undefined ? {} : { name }),
      ...(run === undefined ? {} : { run: Number(run) }),
    }
  }

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { what, name, run } = asked(request.url ?? '/')
    const route = `${request.method ?? ''} ${what}${name === undefined ? '' : ' NAME'}`
    const answer = (value: unknown = {}) => response.end(JSON.stringify(value))
    if (run !== undefined && route !== 'DELETE machines NAME') throw new Refusal(400, 'no run is meant here')
    const pause = (signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> =>
      turns.take(name ?? '', () => {
        if (signalAll(machines.get(name ?? ''), signal).length === 0)
          throw new Refusal(409, `${name ?? ''} does not run`)
      })
    if (route === 'GET machines') {
      answer(list())
    } else if (route === 'GET version') {
      answer({ version: 2 })
    } else if (route === 'PUT machines NAME' && name) {
      const wanted = startRequest(await body(request))
      await turns.take(name, () => {
        start(name, wanted)
      })
      answer()
    } else if (route === 'DELETE machines NAME' && name) {
      await turns.take(name, () => end(name, run))
      answer()
    } else if (route === 'PUT paused NAME') {
      await pause('SIGSTOP')
      answer()
    } else if (route === 'DELETE paused NAME') {
      await pause('SIGCONT')
      answer()
    } else if (route === 'PUT forward') {
      const to = await body(request)
      if (!isRecord(to) || !isHost(to['host']) || !isPort(to['port']))
        throw new Refusal(400, 'wanted {host, port}')
      forwardTo = { host: to['host'], port: to['port'] }
      answer()
    } else if (route === 'DELETE ') {
      response.end('{}', () => process.exit(0))
    } else {
      throw new Refusal(404, `no ${route}`)
    }
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      const stderr = (error as { stderr?: Buffer | null }).stderr?.toString() ?? ''
      const status = error instanceof Refusal ? error.status : 500
      if (status === 500) say(`${request.method ?? ''} ${request.url ?? ''}`, error)
      if (response.headersSent) return void response.destroy()
      // What is left of its body is not read.
      response.writeHead(status, { connection: 'close' }).end(
        JSON.stringify({
          error: `${error instanceof Error ? error.message : String(error)} ${stderr}`.trim(),
        }),
      )
    })
  })

  const dial = (host: string, port: number): Socket => {
    const socket = connect({ host, port, noDelay: true })
    socket.setTimeout(dialTimeout, () => socket.destroy(new Error('ETIMEDOUT')))
    socket.once('connect', () => socket.setTimeout(0))
    return socket
  }

  const join = (near: Socket, far: Socket): void => {
    near.on('error', () => far.destroy())
    far.on('error', () => near.destroy())
    near.on('close', () => far.destroy())
    far.on('close', () => near.destroy())
    near.pipe(far)
    far.pipe(near)
  }

  server.on('connect', (request: IncomingMessage, near: Socket, head: Buffer) => {
    near.on('error', () => near.destroy())
    const [, host, digits] = /^(.*):(\d{1,5})$/.exec(request.url ?? '') ?? []
    const port = Number(digits)
    if (!isHost(host) || !isPort(port)) {
      near.end('HTTP/1.1 400 wanted CONNECT HOST:PORT\r\n\r\n')
      return
    }
    const far = dial(host, port)
    const refuse = (error: Error) => near.end(`HTTP/1.1 502 ${error.message.replace(/[^ -~]/g, ' ')}\r\n\r\n`)
    near.on('error', () => far.destroy())
    near.once('close', () => far.destroy())
    far.once('error', refuse)
    far.once('connect', () => {
      far.off('error', refuse)
      near.write('HTTP/1.1 200 OK\r\n\r\n')
      if (head.length > 0) far.write(head)
      join(near, far)
    })
  })

  const forward = createTcpServer((near) => {
    if (!forwardTo) near.destroy()
    else join(near, dial(forwardTo.host, forwardTo.port))
  })

  // However many connect, there are descriptors left for machines and their consoles.
  const most = Math.max(64, Math.min(2000, Math.floor((openFiles() - 256) / 5)))
  const bound = (listener: Server, what: string): void => {
    listener.maxConnections = most
    listener.on('listening', () => {
      listener.on('error', (error) => say(what, error))
    })
  }
  bound(server, 'the socket')
  bound(forward, 'the way to the API server')
  // Who has connected and asks nothing may not keep out those who do.
  const waiting = new Set<Socket>()
  const heard = ({ socket }: { socket: Socket }): void => void waiting.delete(socket)
  server.on('connection', (socket: Socket) => {
    waiting.add(socket)
    socket.once('close', () => waiting.delete(socket))
    const [first] = waiting
    if (waiting.size > waitingConnections) first?.destroy()
  })
  server.prependListener('request', heard)
  server.prependListener('connect', heard)
  server.headersTimeout = 5000
  server.requestTimeout = 30_000
  server.keepAliveTimeout = 5000

  // Whatever it is, the machines know nothing of it, and would end with this process.
  process.on('uncaughtException', (error) => say('not caught', error))
  process.on('unhandledRejection', (error) => say('not caught', error))
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(0))
  // Without its socket nobody could ask it anything, nor end it.
  for (const listener of [server, forward])
    listener.once('error', (error: Error) => {
      if (listener.listening) return
      process.stderr.write(`${error.message}\n`)
      process.exit(1)
    })
  server.listen(socketPath, () => chmodSync(socketPath, 0o600))
  forward.listen({ fd: 3 })
}

const [socketPath, address, logPath] = process.argv.slice(2)
if (!socketPath || !address || !logPath) throw new Error('usage: supervisor SOCKET ADDRESS/PREFIX LOG')
process.umask(0o077)
main(socketPath, address, logPath)
