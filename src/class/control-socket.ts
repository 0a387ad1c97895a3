/** How commands talk to the process that keeps a class: HTTP on a socket that only root can open. */
import { createServer, type IncomingMessage, request, type Server } from 'node:http'
import { chmod, rm } from 'node:fs/promises'
import { once } from 'node:events'
import { LabError, messageOf } from '../error.js'

export type Handlers = Readonly<Record<string, (body: unknown) => unknown>>

/** @param handlers by method and path: `POST /reset` */
export const serveControl = async (socket: string, handlers: Handlers): Promise<Server> => {
  await rm(socket, { force: true })
  const answer = async (
    call: IncomingMessage,
  ): Promise<{ readonly status: number; readonly value: unknown }> => {
    const handler = handlers[`${call.method ?? ''} ${call.url ?? ''}`]
    if (!handler) return { status: 404, value: { error: 'no such request' } }
    const chunks: Buffer[] = []
    for await (const chunk of call) chunks.push(chunk as Buffer)
    const text = Buffer.concat(chunks).toString('utf8')
    try {
      return { status: 200, value: (await handler(text === '' ? undefined : JSON.parse(text))) ?? {} }
    } catch (error) {
      return {
        status: 400,
        value: {
          error: messageOf(error),
          ...(error instanceof LabError ? { code: error.code, hint: error.hint } : {}),
        },
      }
    }
  }
  const server = createServer((call, response) => {
    answer(call)
      .then(({ status, value }) => response.writeHead(status).end(JSON.stringify(value)))
      .catch(() => response.destroy())
  })
  server.listen(socket)
  await once(server, 'listening')
  await chmod(socket, 0o600)
  return server
}

const silent = (why: string, cause: unknown): LabError =>
  new LabError('no-gateway', `the gateway of the class does not answer: ${why}`, {
    hint: 'lab class up LAB --count N starts it again',
    cause,
  })

/** @throws SyntaxError, or the error of the other side */
const answerIn = (status: number | undefined, text: string): unknown => {
  const answer: unknown = JSON.parse(text)
  if (status === 200) return answer
  const { code, error, hint } = (answer ?? {}) as { code?: string; error?: string; hint?: string }
  throw new LabError(code ?? 'gateway', error ?? 'the gateway refused', { hint })
}

/** @throws LabError `no-gateway` if no gateway listens; or the error of the other side */
export const callControl = <T>(
  socket: string,
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
): Promise<T> =>
  new Promise((resolve, reject) => {
    const call = request({ socketPath: socket, method, path, agent: false, timeout: 20_000 }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => {
        try {
          resolve(answerIn(response.statusCode, Buffer.concat(chunks).toString('utf8') || '{}') as T)
        } catch (error) {
          reject(error instanceof LabError ? error : silent('its answer is not one of a gateway', error))
        }
      })
    })
    call.on('timeout', () => call.destroy(new Error('no answer in 20 s')))
    call.on('error', (error) => reject(silent(error.message, error)))
    call.end(body === undefined ? undefined : JSON.stringify(body))
  })
