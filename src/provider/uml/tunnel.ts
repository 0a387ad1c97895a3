/** The host's side of the supervisor's socket. */
import { request } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** Milliseconds that a call waits for a place in the queue of a busy supervisor. */
const queueTimeout = 10_000

/**
 * Makes a call that may find the supervisor's queue of new connections full: the kernel then refuses at once with
 * EAGAIN, before anything is sent, so the call is made again until there is a place.
 */
const whenQueued = async <T>(call: () => Promise<T>): Promise<T> => {
  for (const until = performance.now() + queueTimeout; ;) {
    try {
      return await call()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || performance.now() >= until) throw error
      await delay(20)
    }
  }
}

/** A TCP connection to an address inside the lab's network. */
export const connectThrough = (socketPath: string, host: string, port: number): Promise<Socket> =>
  whenQueued(() => connectOnce(socketPath, host, port))

const connectOnce = (socketPath: string, host: string, port: number): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const call = request({ socketPath, method: 'CONNECT', path: `${host}:${String(port)}` })
    call.once('connect', (response, socket, head) => {
      if (response.statusCode === 200) {
        // A server that speaks first (SSH, MySQL) may have sent data in the same packet as the answer.
        if (head.length > 0) socket.unshift(head)
        resolve(socket)
      } else {
        socket.destroy()
        reject(new Error(`${host}:${String(port)}: ${response.statusMessage ?? 'refused'}`))
      }
    })
    call.once('error', reject)
    call.end()
  })

/** The supervisor's refusal of a request. */
export class SupervisorRefusal extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/**
 * One request to the supervisor.
 * @throws SupervisorRefusal, or ENOENT/ECONNREFUSED if none runs
 */
export const callSupervisor = <T>(
  socketPath: string,
  method: 'GET' | 'PUT' | 'DELETE',
  path: string,
  body?: unknown,
): Promise<T> => whenQueued(() => callOnce<T>(socketPath, method, path, body))

/** A JSON object; undefined for anything else, such as the answer of another program that listens there. */
const objectIn = (text: string): { readonly error?: unknown } | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

const callOnce = <T>(socketPath: string, method: string, path: string, body: unknown): Promise<T> =>
  new Promise((resolve, reject) => {
    // A new connection each time: on a busy host, a kept one may be closed just when it is used again.
    const call = request({ socketPath, method, path, agent: false }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => {
        const status = response.statusCode ?? 500
        const answer = objectIn(Buffer.concat(chunks).toString('utf8') || '{}')
        if (answer && status === 200) resolve(answer as T)
        else {
          const { error } = answer ?? { error: 'its answer is not one of a supervisor' }
          reject(new SupervisorRefusal(status, typeof error === 'string' ? error : `HTTP ${String(status)}`))
        }
      })
      response.on('error', reject)
    })
    call.once('error', reject)
    call.end(body === undefined ? undefined : JSON.stringify(body))
  })
