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
import { chmodSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server as HttpServer, type ServerResponse } from 'node:http'
import { Server } from 'node:net'
import { makeBridge } from './bridge.js'
import { BoundedLog } from './console.js'
import { asked, bodyOf, forwardRequest, Refusal, startRequest } from './requests.js'
import { forward, limitConnections, limitWaiting, tunnel } from './connections.js'
import { Machines } from './machines.js'
import { redfishPort, redfishServer, redfishService, type Switches } from './redfish.js'

const logLimit = 256 * 1024

type Say = (what: string, error: unknown) => void

/** Writes errors to the log of the supervisor. */
const sayIn = (logPath: string): Say => {
  const log = new BoundedLog(logPath, logLimit)
  return (what, error) => {
    try {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      log.write(Buffer.from(`${new Date().toISOString()} ${what}: ${text}\n`))
    } catch {
      // The disk is full, which is no reason to end the lab.
    }
  }
}

/** Offers the power switches of the machines at this address, with the certificate of the latest request. */
const redfishAt = (address: string, machines: Machines, say: Say): ((wanted: unknown) => Promise<void>) => {
  const switches: Switches = {
    list: () => machines.switches(),
    on: (name) => machines.startAgain(name),
    off: (name) => machines.end(name),
  }
  let offered: ReturnType<typeof redfishServer> | undefined
  return (wanted) => {
    const service = redfishService(wanted)
    if (!service) throw new Refusal(400, 'expected {username, password, key, certificate}')
    offered?.close()
    offered?.closeAllConnections()
    const listener = redfishServer(service, switches, say)
    offered = listener
    return new Promise((resolve, reject) => {
      listener.once('error', reject)
      listener.listen(redfishPort, address, () => {
        listener.off('error', reject).on('error', (error) => say('the power switches', error))
        resolve()
      })
    })
  }
}

/** What requests act on. */
interface Served {
  readonly machines: Machines
  readonly offer: (wanted: unknown) => Promise<void>
  forwardTo: { host: string; port: number } | undefined
}

const handle = async (served: Served, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const { machines } = served
  const { route, name, run } = asked(request)
  const answer = (value: unknown = {}) => response.end(JSON.stringify(value))
  const pause = async (signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> => {
    if (!(await machines.pause(name ?? '', signal))) throw new Refusal(409, `${name ?? ''} is not running`)
  }
  if (route === 'GET machines') {
    answer(machines.list())
  } else if (route === 'GET version') {
    answer({ version: 2 })
  } else if (route === 'PUT machines NAME' && name) {
    await machines.start(name, startRequest(await bodyOf(request)))
    answer()
  } else if (route === 'DELETE machines NAME' && name) {
    await machines.end(name, run)
    answer()
  } else if (route === 'PUT paused NAME') {
    await pause('SIGSTOP')
    answer()
  } else if (route === 'DELETE paused NAME') {
    await pause('SIGCONT')
    answer()
  } else if (route === 'PUT forward') {
    served.forwardTo = forwardRequest(await bodyOf(request))
    answer()
  } else if (route === 'GET forward') {
    answer(served.forwardTo ?? {})
  } else if (route === 'PUT redfish') {
    await served.offer(await bodyOf(request))
    answer()
  } else if (route === 'DELETE ') {
    response.end('{}', () => process.exit(0))
  } else {
    throw new Refusal(404, `no ${route}`)
  }
}

/** The server on the socket. It answers every request, whatever happens in it. */
const serverFor = (served: Served, say: Say): HttpServer => {
  const server = createServer((request, response) => {
    handle(served, request, response).catch((error: unknown) => {
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
  return server
}

const giveUp = (why: string): void => {
  process.stderr.write(`${why}\n`)
  process.exit(1)
}

/** Machines are not affected by an error of this process, and would end with it. */
const surviveErrors = (say: Say): void => {
  process.on('uncaughtException', (error) => say('not caught', error))
  process.on('unhandledRejection', (error) => say('not caught', error))
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(0))
}

/** Takes the server from whoever started this program, and then listens on the socket. */
const listenWhenForwarding = (server: HttpServer, socketPath: string, served: Served, say: Say): void => {
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
    forward(listener, () => served.forwardTo)
    process.off('disconnect', nobody)
    // Not within this handler: Node.js has not finished with the message yet.
    setImmediate(() => {
      process.disconnect()
    })
    // As many waiting connections as the host allows (net.core.somaxconn), instead of the 511 of Node.js.
    server.listen({ path: socketPath, backlog: 65_535 }, () => chmodSync(socketPath, 0o600))
  })
}

const main = (socketPath: string, address: string, logPath: string): void => {
  const say = sayIn(logPath)
  const machines = new Machines(makeBridge(address), say)
  const offer = redfishAt(address.replace(/\/.*/, ''), machines, say)
  const served: Served = { machines, offer, forwardTo: undefined }
  const server = serverFor(served, say)
  surviveErrors(say)
  server.on('error', (error) => {
    if (server.listening) say('the socket', error)
    // Without its socket, nobody could control or end it.
    else giveUp(error.message)
  })
  listenWhenForwarding(server, socketPath, served, say)
}

const [socketPath, address, logPath] = process.argv.slice(2)
if (!socketPath || !address || !logPath) throw new Error('usage: supervisor SOCKET ADDRESS/PREFIX LOG')
process.umask(0o077)
main(socketPath, address, logPath)
