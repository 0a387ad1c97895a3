/**
 * The first process of a lab's namespaces (network, PID, mount; user where not root). It makes the lab's
 * bridge, starts and ends the machines, and carries TCP connections from the host into the lab's network.
 * Because it is PID 1 there, its end is the end of every machine: nothing can be left behind, and nothing but
 * `DELETE /` may end it: no request, however odd, and no number of them.
 *
 * Standard library only: it must start fast and stay small.
 *
 * Arguments: socket path, bridge address (CIDR), log. Whoever starts it sends it, over Node's IPC channel, a server
 * that listens on the *host's* 127.0.0.1: it leads to the address given by `PUT /forward`.
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
 *   GET /forward               the same; {} before there was any
 *   PUT /redfish               RedfishService: offers the power switches at the bridge's address
 *   DELETE /                   ends everything
 *   CONNECT host:port          a tunnel into the lab's network
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Server } from 'node:net'
import { constants } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { makeBridge } from './bridge.js'
import { confined } from './confine.js'
import { BoundedLog } from './console.js'
import { allProcesses, familyOf, lives } from './processes.js'
import {
  asked,
  bodyOf,
  forwardRequest,
  Refusal,
  type RunningMachine,
  type StartRequest,
  startRequest,
} from './requests.js'
import { forward, limitConnections, limitWaiting, tunnel } from './connections.js'
import { redfishPort, redfishServer, redfishService, type Switches } from './redfish.js'

interface Entry extends StartRequest {
  readonly child: ChildProcess
  readonly started: number
  ended?: string
}

/** Size in bytes at which a console log is rotated; a boot prints 20 KiB. */
const consoleLimit = 4 * 1024 ** 2
const logLimit = 256 * 1024

/** A shell's exit code in words: a code above 128 stands for the signal that ended the program. */
const endingOf = (code: number): string =>
  Object.entries(constants.signals).find(([, number]) => number === code - 128)?.[0] ??
  `exit code ${String(code)}`

const send = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal)
  } catch {
    // The process has ended meanwhile.
  }
}

/** Runs the actions for one machine one after another: a start waits for the end of the previous run. */
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
  /** How each machine was last started, for clients that only have its power switch. */
  const requests = new Map<string, StartRequest>()
  const turns = new Turns()
  let forwardTo: { host: string; port: number } | undefined
  let lastStart = 0

  const log = new BoundedLog(logPath, logLimit)
  const say = (what: string, error: unknown): void => {
    try {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      log.write(Buffer.from(`${new Date().toISOString()} ${what}: ${text}\n`))
    } catch {
      // The disk is full, which is no reason to end the lab.
    }
  }

  const bridge = makeBridge(address)

  const start = (name: string, request: StartRequest): void => {
    requests.set(name, request)
    const known = machines.get(name)
    if (known && known.ended === undefined) return
    const network = bridge.plug(request.link, request.user)
    const output = new BoundedLog(request.console, consoleLimit)
    const root = `/dev/shm/${name}`
    mkdirSync(root, { recursive: true })
    const { command, env } = confined([...request.argv, network], {
      root,
      binds: [
        { from: '/dev/null', to: '/dev/null', writable: true },
        ...(bridge.tap === undefined ? [] : [{ from: bridge.tap, to: '/dev/net/tun', writable: true }]),
        ...request.binds,
      ],
      ...(request.user === undefined ? {} : { user: request.user }),
      ...(bridge.tap === undefined ? { cable: request.link[1] } : {}),
    })
    // Each machine has a PID namespace: when its first process ends, the kernel ends all its helpers. And it has one
    // CPU: its kernel and its programs are processes that hand over to each other at every system call and never run
    // at the same time. A hand-over takes 11 microseconds on one CPU, and 14 to 32 across two, depending on load.
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
    // `close` rather than `exit`: by then its last output is in the log.
    child.on('close', (code, signal) => {
      entry.ended ??= signal ?? endingOf(code ?? 0)
      output.close()
    })
    machines.set(name, entry)
  }

  /** A machine's kernel starts processes all the time, so this repeats until no new one is found. */
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
   * Ends a machine, and returns when all its processes are gone, since one of them holds the lock of its disks. They
   * are stopped first: a machine that is just starting may not be in its PID namespace yet, and would survive.
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

  const switches: Switches = {
    list: () =>
      [...requests.keys()].map((name) => {
        const entry = machines.get(name)
        return { name, on: entry !== undefined && entry.ended === undefined }
      }),
    on: (name) =>
      turns.take(name, () => {
        const request = requests.get(name)
        if (request) start(name, request)
      }),
    off: (name) => turns.take(name, () => end(name, undefined)),
  }

  let offered: ReturnType<typeof redfishServer> | undefined
  const offer = (wanted: unknown): Promise<void> => {
    const service = redfishService(wanted)
    if (!service) throw new Refusal(400, 'expected {username, password, key, certificate}')
    offered?.close()
    offered?.closeAllConnections()
    const listener = redfishServer(service, switches, say)
    offered = listener
    return new Promise((resolve, reject) => {
      listener.once('error', reject)
      listener.listen(redfishPort, address.split('/')[0], () => {
        listener.off('error', reject).on('error', (error) => say('the power switches', error))
        resolve()
      })
    })
  }

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { route, name, run } = asked(request)
    const answer = (value: unknown = {}) => response.end(JSON.stringify(value))
    const pause = (signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> =>
      turns.take(name ?? '', () => {
        if (signalAll(machines.get(name ?? ''), signal).length === 0)
          throw new Refusal(409, `${name ?? ''} is not running`)
      })
    if (route === 'GET machines') {
      answer(list())
    } else if (route === 'GET version') {
      answer({ version: 2 })
    } else if (route === 'PUT machines NAME' && name) {
      const wanted = startRequest(await bodyOf(request))
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
      forwardTo = forwardRequest(await bodyOf(request))
      answer()
    } else if (route === 'GET forward') {
      answer(forwardTo ?? {})
    } else if (route === 'PUT redfish') {
      await offer(await bodyOf(request))
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
      // The rest of the body is not read.
      response.writeHead(status, { connection: 'close' }).end(
        JSON.stringify({
          error: `${error instanceof Error ? error.message : String(error)} ${stderr}`.trim(),
        }),
      )
    })
  })

  server.on('connect', tunnel)
  limitConnections(server)
  limitWaiting(server)

  // Machines are not affected by such an error, and would end with this process.
  process.on('uncaughtException', (error) => say('not caught', error))
  process.on('unhandledRejection', (error) => say('not caught', error))
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(0))
  const giveUp = (why: string): void => {
    process.stderr.write(`${why}\n`)
    process.exit(1)
  }
  server.on('error', (error) => {
    if (server.listening) say('the socket', error)
    // Without its socket, nobody could control or end it.
    else giveUp(error.message)
  })
  const nobody = (): void => {
    giveUp('the process that started this program ended before it sent a way to the API server')
  }
  process.once('disconnect', nobody)
  process.once('message', (_, listener) => {
    if (!(listener instanceof Server)) {
      giveUp('the first message must contain a server')
      return
    }
    limitConnections(listener)
    listener.on('error', (error) => say('the way to the API server', error))
    forward(listener, () => forwardTo)
    process.off('disconnect', nobody)
    // Not within this handler: Node.js has not finished with the message yet.
    setImmediate(() => {
      process.disconnect()
    })
    // As many waiting connections as the host allows (net.core.somaxconn), instead of the 511 of Node.js.
    server.listen({ path: socketPath, backlog: 65_535 }, () => chmodSync(socketPath, 0o600))
  })
}

const [socketPath, address, logPath] = process.argv.slice(2)
if (!socketPath || !address || !logPath) throw new Error('usage: supervisor SOCKET ADDRESS/PREFIX LOG')
process.umask(0o077)
main(socketPath, address, logPath)
