/** SSH connections that break, and that carry many commands. */
import { makeKeyPair } from '../../src/machine/keys.js'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { LabError } from '../../src/error.js'
import { sshTransport } from '../../src/machine/ssh.js'
import { temporaryFolder } from '../helpers/folder.js'
import { keyBlob, TestSshServer } from '../helpers/ssh-server.js'
import { codeOf, mute, reach } from './reach.js'

describe('a connection that drops', () => {
  test('a session reports a connection that drops under a command as lost, never as success', async () => {
    const { server, transport } = await reach()
    const running = transport.exec('echo begun; sleep 60', {})
    await vi.waitFor(() => expect(server.ran).toHaveLength(1))
    await delay(100)
    server.drop()
    const error: unknown = await running.catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'ssh-lost' })
    expect((error as Error).message).toContain('worker1 (192.168.56.21)')
  })

  test('a session reports the loss to each of many commands under way', async () => {
    const { server, transport } = await reach()
    const running = Array.from({ length: 8 }, () => codeOf(transport.exec('sleep 60', {})))
    await vi.waitFor(() => expect(server.ran).toHaveLength(8))
    server.drop()
    expect(new Set(await Promise.all(running))).toEqual(new Set(['ssh-lost']))
  })

  test('a session reports a loss when the connection drops while input is sent', async () => {
    const { server, transport } = await reach()
    const running = codeOf(transport.exec('sleep 60', { input: Buffer.alloc(20_000_000) }))
    await vi.waitFor(() => expect(server.ran).toHaveLength(1))
    server.drop()
    expect(await running).toBe('ssh-lost')
  })

  test('a session connects again for the next command', async () => {
    const { server, transport } = await reach()
    const running = codeOf(transport.exec('sleep 60', {}))
    await vi.waitFor(() => expect(server.ran).toHaveLength(1))
    server.drop()
    expect(await running).toBe('ssh-lost')
    const again = Array.from({ length: 5 }, () => transport.exec('echo back', {}))
    for (const result of await Promise.all(again)) expect(result.stdout).toBe('back\n')
    expect(server.logins).toBe(2)
    expect(server.open).toBe(1)
  })

  test('a session reports no error when an idle connection drops', async () => {
    const { server, transport } = await reach()
    await transport.exec('true', {})
    server.drop()
    await delay(100)
    expect(await transport.exec('echo back', {})).toMatchObject({ stdout: 'back\n' })
    expect(server.logins).toBe(2)
  })

  test('a session connects again after many drops, with one connection at a time', async () => {
    const { server, transport } = await reach()
    for (let n = 1; n <= 4; n++) {
      expect(await transport.exec(`echo ${String(n)}`, {})).toMatchObject({ stdout: `${String(n)}\n` })
      expect(server.open).toBe(1)
      server.drop()
      await vi.waitFor(() => expect(server.open).toBe(0))
      await delay(50)
    }
    expect(server.logins).toBe(4)
  })
})

describe('a channel that ends without an exit code', () => {
  test('a session reports a channel that ends without an exit code as lost, and leaves no connection open', async () => {
    const { server, transport } = await reach()
    server.instead = (channel) => {
      channel.close()
    }
    expect(await codeOf(transport.exec('true', {}))).toBe('ssh-lost')
    server.instead = undefined
    expect(await transport.exec('echo next', {})).toMatchObject({ stdout: 'next\n' })
    await transport.close()
    await vi.waitFor(() => expect(server.open).toBe(0), { timeout: 2000 })
  })

  test('a session names the address when a channel is refused, as by MaxSessions', async () => {
    const { server, transport } = await reach()
    await transport.exec('true', {})
    server.full = true
    const error: unknown = await transport.exec('true', {}).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(LabError)
    expect((error as Error).message).toMatch(/worker1.*open failure|worker1.*Channel/i)
    server.full = false
    expect(await transport.exec('echo next', {})).toMatchObject({ stdout: 'next\n' })
    await transport.close()
    await vi.waitFor(() => expect(server.open).toBe(0), { timeout: 2000 })
  })
})

describe('the identity of the other end', () => {
  test('a session refuses another host key before anything is sent', async () => {
    const other = makeKeyPair('stranger')
    const { server, transport } = await reach({ hostKey: keyBlob(other.publicKey) })
    const error: unknown = await transport.exec('echo secret', {}).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'host-key-changed' })
    expect((error as Error).message).toContain('worker1 (192.168.56.21)')
    expect(server.attempts).toBe(0)
    expect(server.ran).toEqual([])
    await vi.waitFor(() => expect(server.open).toBe(0))
  })

  test.each(['', 'AAAA', 'not base64 at all'])(
    'a session refuses %j, which is not a host key',
    async (hostKey) => {
      const { server, transport } = await reach({ hostKey })
      expect(await codeOf(transport.exec('true', {}))).toBe('ssh-unreachable')
      expect(server.attempts).toBe(0)
    },
  )

  test('a session reports that a machine rejects a key it does not know', async () => {
    const stranger = makeKeyPair('stranger')
    const { server, transport } = await reach({ privateKey: stranger.privateKey })
    expect(await codeOf(transport.exec('true', {}))).toBe('login-refused')
    expect(server.logins).toBe(0)
    await vi.waitFor(() => expect(server.open).toBe(0))
  })

  test('a session connects again with every command while a machine is not reachable yet', async () => {
    const server = new TestSshServer(join(await temporaryFolder(), 'sshd.sock'))
    onTestFinished(() => server.stop())
    const transport = sshTransport(server.endpoint())
    onTestFinished(() => transport.close())
    expect(await codeOf(transport.exec('true', {}))).toBe('ssh-unreachable')
    expect(await codeOf(transport.exec('true', {}))).toBe('ssh-unreachable')
    await server.listen()
    expect(await transport.exec('echo there', {})).toMatchObject({ stdout: 'there\n' })
  })

  test('a session reports something that is no SSH server as one that closes the connection', async () => {
    const path = join(await temporaryFolder(), 'http.sock')
    const http = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(path)
    onTestFinished(() => void http.close())
    await once(http, 'listening')
    const { transport } = await reach({ dial: () => Promise.resolve(connect(path)) })
    expect(await codeOf(transport.exec('true', {}))).toBe('ssh-closed')
  })
})

describe('one connection for many commands', () => {
  test('a session carries many commands at once over one connection, each with its own answer', async () => {
    const warnings: Error[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    onTestFinished(() => void process.off('warning', note))
    const { server, transport } = await reach()
    const numbers = Array.from({ length: 60 }, (_, n) => n)
    const results = await Promise.all(
      numbers.map((n) =>
        transport.exec(`cat; echo ${String(n)}; exit ${String(n)}`, { input: `in ${String(n)}\n` }),
      ),
    )
    expect(results).toEqual(
      numbers.map((n) => ({ exitCode: n, stdout: `in ${String(n)}\n${String(n)}\n`, stderr: '' })),
    )
    expect(server.connections).toBe(1)
    expect(server.logins).toBe(1)
    expect(warnings).toEqual([])
  })

  test('a session opens no connection before it is needed', async () => {
    const { server, transport } = await reach()
    await transport.close()
    expect(server.connections).toBe(0)
  })

  test('a session closes a connection, and closes it twice without an error', async () => {
    const { server, transport } = await reach()
    await transport.exec('true', {})
    await transport.close()
    await transport.close()
    await vi.waitFor(() => expect(server.open).toBe(0))
  })

  test('a session closes a connection at once, even while its login hangs', async () => {
    const { transport } = await reach({ dial: await mute() })
    const running = codeOf(transport.exec('true', {}))
    await delay(100)
    await Promise.race([
      transport.close(),
      delay(2000).then(() => Promise.reject(new Error('still closing'))),
    ])
    expect(await running).toBe('ssh-unreachable')
  })

  test('a session reports a loss to a command whose connection is closed', async () => {
    const { server, transport } = await reach()
    const running = codeOf(transport.exec('sleep 60', {}))
    await vi.waitFor(() => expect(server.ran).toHaveLength(1))
    await transport.close()
    expect(await running).toBe('ssh-lost')
  })
})
