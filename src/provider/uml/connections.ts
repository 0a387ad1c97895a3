/** TCP connections from the host into the lab's network, and how many there may be. */
import { readFileSync } from 'node:fs'
import type { IncomingMessage, Server as HttpServer } from 'node:http'
import { connect, type Server, type Socket } from 'node:net'
import { isHost, isPort } from './requests.js'

/** Milliseconds to wait for a TCP answer of a machine that may be down: nobody sends a RST for it. */
const dialTimeout = 3000
/** Connections that have asked nothing yet: beyond these, the one that has waited longest is closed. */
const waitingConnections = 200

/** Descriptors that this process may have; each tunnel takes two. */
const openFiles = (): number =>
  Number(/^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 1024)

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

/** Answers `CONNECT host:port`. */
export const tunnel = (request: IncomingMessage, near: Socket, head: Buffer): void => {
  near.on('error', () => near.destroy())
  const [, host, digits] = /^(.*):(\d{1,5})$/.exec(request.url ?? '') ?? []
  const port = Number(digits)
  if (!isHost(host) || !isPort(port)) {
    near.end('HTTP/1.1 400 expected CONNECT HOST:PORT\r\n\r\n')
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
}

/** Each connection to `listener` leads to an address of the lab, once there is one. */
export const forward = (
  listener: Server,
  to: () => { readonly host: string; readonly port: number } | undefined,
): void => {
  listener.on('connection', (near) => {
    const address = to()
    if (!address) return void near.destroy()
    const far = dial(address.host, address.port)
    // The address may have moved to another control plane, which does not know this connection and says so when it is
    // probed. A client that only listens, like kubectl --watch, would otherwise wait forever.
    far.setKeepAlive(true, 2000)
    join(near, far)
  })
}

/** However many clients connect, there are descriptors left for machines and their consoles. */
export const limitConnections = (listener: Server): void => {
  listener.maxConnections = Math.max(64, Math.min(2000, Math.floor((openFiles() - 256) / 5)))
}

/** A client that connects and sends nothing must not keep others out. */
export const limitWaiting = (server: HttpServer): void => {
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
}
