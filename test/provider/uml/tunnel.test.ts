import { createServer } from 'node:http'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { callControl } from '../../../src/class/control-socket.js'
import { callSupervisor, connectThrough } from '../../../src/provider/uml/tunnel.js'

/** A server whose queue of new connections has one place, and which is full until it is next able to accept. */
const busyServer = async () => {
  const folder = mkdtempSync('/tmp/lab-tunnel-')
  const path = join(folder, 'socket')
  const server = createServer((_, response) => response.end('{"answered":true}'))
  server.on('connect', (_, line) => line.end('HTTP/1.1 200 OK\r\n\r\nhello'))
  server.listen({ path, backlog: 1 })
  await once(server, 'listening')
  const idle: Socket[] = []
  onTestFinished(() => {
    for (const line of idle) line.destroy()
    server.closeAllConnections()
    server.close()
    rmSync(folder, { recursive: true })
  })
  const refused = new Set<string | undefined>()
  for (let each = 0; each < 10; each++)
    idle.push(connect(path).on('error', ({ code }: NodeJS.ErrnoException) => refused.add(code)))
  return { path, refused }
}

it('a request waits for a place in the queue of a supervisor that is too busy to accept it', async () => {
  const { path, refused } = await busyServer()
  await expect(callSupervisor(path, 'GET', '/machines')).resolves.toEqual({ answered: true })
  expect(refused).toContain('EAGAIN')
})

it('a tunnel waits for a place in the queue of a supervisor that is too busy to accept it', async () => {
  const { path, refused } = await busyServer()
  const tunnel = await connectThrough(path, '192.168.56.10', 22)
  expect(String(await once(tunnel, 'data'))).toBe('hello')
  expect(refused).toContain('EAGAIN')
})

it.each(['<html>', 'null', '5', '"text"'])(
  'an answer of something else at the socket, such as %s, is refused by a supervisor and by a gateway in words',
  async (text) => {
    const folder = mkdtempSync('/tmp/lab-tunnel-')
    const path = join(folder, 'socket')
    const server = createServer((_, response) => {
      response.statusCode = 404
      response.end(text)
    })
    server.listen(path)
    await once(server, 'listening')
    onTestFinished(() => {
      server.close()
      rmSync(folder, { recursive: true })
    })
    await expect(callSupervisor(path, 'GET', '/machines')).rejects.toThrow(
      'its answer is not one of a supervisor',
    )
    await expect(callControl(path, 'GET', '/')).rejects.toMatchObject({
      name: 'LabError',
      message: expect.stringMatching(/gateway/) as string,
    })
  },
)
