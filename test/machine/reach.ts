import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { LabError } from '../../src/error.js'
import type { Transport } from '../../src/machine/machine.js'
import { sshTransport, type SshEndpoint } from '../../src/machine/ssh.js'
import { temporaryFolder } from '../helpers/folder.js'
import { TestSshServer } from '../helpers/ssh-server.js'

export const reach = async (
  changes: Partial<SshEndpoint> = {},
): Promise<{ server: TestSshServer; transport: Transport }> => {
  const server = await TestSshServer.start()
  const transport = sshTransport(server.endpoint(changes))
  onTestFinished(() => transport.close())
  return { server, transport }
}

/** The code of the LabError with which it fails; any other error fails the test. */
export const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  const error: unknown = await promise.then(
    () => new Error('it did not fail'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof LabError)) throw error
  return error.code
}

/** A server that accepts connections and does not answer: a machine that hangs. */
export const mute = async (): Promise<SshEndpoint['dial']> => {
  const path = join(await temporaryFolder(), 'mute.sock')
  const sockets: Socket[] = []
  const server = createServer((socket) => void sockets.push(socket)).listen(path)
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  await once(server, 'listening')
  return () => Promise.resolve(connect(path))
}
