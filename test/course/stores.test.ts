/** The port through which the client library of an experiment connects: for this process only. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { execa } from 'execa'
import { openEntrance } from '../../src/course/stores.js'
import { loadLab } from '../../src/registry.js'
import type { Dialer } from '../../src/trial/store.js'

const cleanUp: (() => void)[] = []
afterEach(() => {
  for (const each of cleanUp.splice(0)) each()
})

/** A server that sends a greeting, behind that port. */
const entrance = async () => {
  let visits = 0
  const server = createServer((socket) => {
    visits++
    socket.on('error', () => undefined)
    socket.end('hello\n')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const lab = await loadLab('iscsi-ha')
  const dial = async () => {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    return socket
  }
  const opened = await openEntrance({ lab, provider: { dial } } as unknown as Dialer, port, 0)
  cleanUp.push(() => {
    opened.close()
    server.close()
  })
  return { port: opened.port, visits: () => visits }
}

it('the forwarded port connects the program that opened it to the database', async () => {
  const { port } = await entrance()
  const socket = connect(port, '127.0.0.1')
  let said = ''
  socket.on('data', (chunk: Buffer) => (said += chunk.toString()))
  await once(socket, 'close')
  expect(said).toBe('hello\n')
})

it('the forwarded port hangs up on any other program of the host', async () => {
  const { port, visits } = await entrance()
  const { stdout } = await execa('bash', ['-c', `cat < /dev/tcp/127.0.0.1/${String(port)}`], {
    reject: false,
  })
  expect({ stdout, visits: visits() }).toEqual({ stdout: '', visits: 0 })
})
