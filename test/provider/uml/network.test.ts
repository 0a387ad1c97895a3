/**
 * What the host learns from a lab's supervisor. The test's server ends at moments at which a real one cannot be made
 * to end.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { runningMachines, socketOf, whyNoSupervisor } from '../../../src/provider/uml/network.js'

const lab = { name: 'ending' }
let folder: string
let server: Server | undefined

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lab-network-'))
  vi.stubEnv('LAB_STATE', folder)
  await mkdir(dirname(socketOf(lab)), { recursive: true })
})

afterEach(async () => {
  server?.close()
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true, force: true })
})

const listen = (answer: Parameters<typeof createServer>[1]): Promise<void> =>
  new Promise((resolve) => {
    server = createServer(answer).listen(socketOf(lab), resolve)
  })

it('a supervisor that closes a connection while it ends counts as gone', async () => {
  await listen((socket) => {
    server?.close()
    socket.destroy()
  })
  expect(await runningMachines(lab)).toBeUndefined()
})

it('a supervisor that continues after it closed a connection is asked again', async () => {
  let connections = 0
  await listen((socket) => {
    connections += 1
    if (connections === 1) socket.destroy()
    else socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]')
  })
  expect(await runningMachines(lab)).toEqual([])
})

it('an error about a supervisor that did not start always has a reason', () => {
  expect(whyNoSupervisor(true, 'unshare: Operation not permitted')).toBe('unshare: Operation not permitted')
  expect(whyNoSupervisor(true, '')).toBe('its supervisor ended and said nothing')
  expect(whyNoSupervisor(false, '')).toBe('its supervisor did not answer within 60 s')
})
