/** TCP connections from this computer. */
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'

/** Milliseconds: a host that does not answer within this time is off, or does not exist. */
const dialDeadline = 10_000

/** A TCP connection from this computer. */
export const dialDirectly = (host: string, port: number): Promise<Duplex> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true })
    const fail = (error: Error): void => {
      socket.destroy()
      reject(error)
    }
    socket.setTimeout(dialDeadline, () => fail(new Error(`no answer from ${host}:${String(port)}`)))
    socket.once('error', fail).once('connect', () => {
      socket.setTimeout(0).removeListener('error', fail)
      resolve(socket)
    })
  })
