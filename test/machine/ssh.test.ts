import { makeKeyPair } from '../../src/machine/keys.js'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { LabError } from '../../src/error.js'
import type { Transport } from '../../src/machine/machine.js'
import { sshTransport, type SshEndpoint } from '../../src/machine/ssh.js'
import { temporaryFolder } from '../helpers/folder.js'
import { keyBlob, TestSshServer } from '../helpers/ssh-server.js'

const reach = async (
  changes: Partial<SshEndpoint> = {},
): Promise<{ server: TestSshServer; transport: Transport }> => {
  const server = await TestSshServer.start()
  const transport = sshTransport(server.endpoint(changes))
  onTestFinished(() => transport.close())
  return { server, transport }
}

/** The code of the LabError with which it fails; any other error fails the test. */
const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  const error: unknown = await promise.then(
    () => new Error('it did not fail'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof LabError)) throw error
  return error.code
}

const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex')

/** Every byte value, in every order of two. */
const everyByte = Buffer.from(
  Array.from({ length: 256 * 256 * 2 }, (_, n) => (n % 2 ? n >> 1 : n >> 9) & 255),
)

/** A server that accepts connections and does not answer: a machine that hangs. */
const mute = async (): Promise<SshEndpoint['dial']> => {
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

describe('a server that closes connections before a login', () => {
  /** It closes the first connections, as OpenSSH does for a while after several failed logins. */
  const closing = async (connections: number, patience?: number) => {
    const server = await TestSshServer.start()
    const endpoint = server.endpoint()
    let left = connections
    const shut = createServer((socket) => socket.end()).listen(0, '127.0.0.1')
    await once(shut, 'listening')
    onTestFinished(() => void shut.close())
    const { port } = shut.address() as AddressInfo
    const transport = sshTransport({
      ...endpoint,
      ...(patience === undefined ? {} : { patience }),
      dial: () => (left-- > 0 ? Promise.resolve(connect(port, '127.0.0.1')) : endpoint.dial()),
    })
    onTestFinished(() => transport.close())
    return transport
  }

  test('a server that closes connections before a login is reported as such, and not as an interruption', async () => {
    const transport = await closing(1)
    const failed = transport.exec('true', {})
    expect(await codeOf(failed)).toBe('ssh-closed')
    await expect(failed).rejects.toThrow('closes the connection before a login')
  })

  test('a server that closes connections before a login is tried again until the deadline of the caller', async () => {
    const transport = await closing(1, 20)
    expect(await transport.exec('echo hello', {})).toMatchObject({ stdout: 'hello\n' })
  })
})

describe('a command', () => {
  test('a session gives the output of a command and exit code 0', async () => {
    const { transport } = await reach()
    expect(await transport.exec('echo hello', {})).toEqual({ exitCode: 0, stdout: 'hello\n', stderr: '' })
  })

  test('a session returns a failed command as an answer, with its two outputs apart', async () => {
    const { transport } = await reach()
    expect(await transport.exec('echo out; echo err >&2; exit 3', {})).toEqual({
      exitCode: 3,
      stdout: 'out\n',
      stderr: 'err\n',
    })
  })

  test('a session reports a command that a signal ended as failed, but as run', async () => {
    const { transport } = await reach()
    const { exitCode } = await transport.exec('kill -TERM $$', {})
    expect(exitCode).toBeGreaterThan(127)
  })

  test('a session returns many megabytes of output unabridged', async () => {
    const { transport } = await reach()
    const { stdout } = await transport.exec('head -c 5000000 /dev/zero | tr "\\0" x', {})
    expect(stdout.length).toBe(5_000_000)
  })

  test('a session decodes characters that arrive in two pieces', async () => {
    const { transport } = await reach()
    const halves = String.raw`printf '\303'; sleep 0.1; printf '\244'`
    expect((await transport.exec(halves, {})).stdout).toBe('ä')
    expect((await transport.exec(`{ ${halves}; } >&2`, {})).stderr).toBe('ä')
  })

  test('a session starts no more commands at once than the server allows, and all of them in the end', async () => {
    const { transport } = await reach({ sessions: 2 })
    const folder = await temporaryFolder()
    const count = `f=$(mktemp ${folder}/XXXXXX); sleep 0.1; ls ${folder} | wc -l; sleep 0.1; rm $f`
    const counts = await Promise.all(
      Array.from({ length: 6 }, async () => Number((await transport.exec(count, {})).stdout)),
    )
    expect(Math.max(...counts)).toBe(2)
  })

  test('a session keeps blanks and newlines around the output', async () => {
    const { transport } = await reach()
    expect((await transport.exec(String.raw`printf '\n a \n\n'`, {})).stdout).toBe('\n a \n\n')
  })
})

describe('standard input', () => {
  test('a session closes standard input when none is given', async () => {
    const { transport } = await reach()
    expect(await transport.exec('cat; echo end', {})).toMatchObject({ exitCode: 0, stdout: 'end\n' })
  })

  test('a session sends standard input byte for byte, then closes it', async () => {
    const { transport } = await reach()
    const { stdout } = await transport.exec('sha256sum', { input: everyByte })
    expect(stdout).toBe(`${sha256(everyByte)}  -\n`)
  })

  test('a session sends input that is larger than every SSH window', async () => {
    const { transport } = await reach()
    const input = Buffer.concat(Array.from({ length: 60 }, () => everyByte))
    // The command starts slowly, so its input has to wait.
    const { stdout } = await transport.exec('sleep 0.2; sha256sum', { input })
    expect(stdout).toBe(`${sha256(input)}  -\n`)
  })

  test('a session sends text as UTF-8', async () => {
    const { transport } = await reach()
    const input = "パスワード 🔑 'quoted' $HOME\n"
    expect((await transport.exec('cat', { input })).stdout).toBe(input)
  })

  test('a session sends empty input', async () => {
    const { transport } = await reach()
    expect(await transport.exec('wc -c', { input: '', timeout: 5 })).toMatchObject({ stdout: '0\n' })
    expect(await transport.exec('wc -c', { input: Buffer.alloc(0), timeout: 5 })).toMatchObject({
      stdout: '0\n',
    })
  })

  test('a session does not wait for a command to read its input', async () => {
    const { transport } = await reach()
    const input = Buffer.alloc(10_000_000)
    expect(await transport.exec('exit 4', { input, timeout: 10 })).toMatchObject({ exitCode: 4 })
    expect(await transport.exec('echo next', {})).toMatchObject({ stdout: 'next\n' })
  })
})

describe('a command that takes too long', () => {
  test('a session gives up a command that takes too long, closes its channel, and names it', async () => {
    const { server, transport } = await reach()
    const error: unknown = await transport
      .exec('sleep 60', { timeout: 0.2 })
      .catch((reason: unknown) => reason)
    expect(error).toMatchObject({
      code: 'command-timeout',
      message: 'worker1 (192.168.56.21): no answer within 0.2 s: sleep 60',
    })
    await vi.waitFor(() => expect(server.ran[0]?.channelClosed).toBe(true))
  })

  test('a session gives commands on a slower machine more time', async () => {
    const { transport } = await reach({ slowdown: 20 })
    expect(await transport.exec('sleep 1; echo done', { timeout: 0.2 })).toMatchObject({ stdout: 'done\n' })
  })

  test('a session keeps the connection of other commands when one of them takes too long', async () => {
    const { server, transport } = await reach()
    const other = transport.exec('sleep 0.5; echo done', {})
    expect(await codeOf(transport.exec('sleep 60', { timeout: 0.1 }))).toBe('command-timeout')
    expect(await other).toMatchObject({ exitCode: 0, stdout: 'done\n' })
    expect(server.logins).toBe(1)
  })

  test('a session leaves no listeners behind when many commands take too long', async () => {
    const { transport } = await reach()
    const abort = new AbortController()
    const added = vi.spyOn(abort.signal, 'addEventListener')
    const removed = vi.spyOn(abort.signal, 'removeEventListener')
    for (let n = 0; n < 5; n++) await transport.exec('true', { signal: abort.signal })
    expect(added).toHaveBeenCalledTimes(5)
    expect(removed).toHaveBeenCalledTimes(5)
  })
})

describe('an interruption', () => {
  test('a command that is interrupted ends at once, and its channel is closed', async () => {
    const { server, transport } = await reach()
    const abort = new AbortController()
    const running = transport.exec('sleep 60', { signal: abort.signal })
    await vi.waitFor(() => expect(server.ran).toHaveLength(1))
    const since = performance.now()
    abort.abort()
    expect(await codeOf(running)).toBe('interrupted')
    expect(performance.now() - since).toBeLessThan(10_000)
    await vi.waitFor(() => expect(server.ran[0]?.channelClosed).toBe(true))
  })

  test('a session keeps the connection for others when one command is interrupted', async () => {
    const { server, transport } = await reach()
    const abort = new AbortController()
    const running = transport.exec('sleep 60', { signal: abort.signal })
    const other = transport.exec('sleep 0.5; echo done', {})
    await vi.waitFor(() => expect(server.ran).toHaveLength(2))
    abort.abort()
    expect(await codeOf(running)).toBe('interrupted')
    expect(await other).toMatchObject({ stdout: 'done\n' })
    expect(server.logins).toBe(1)
  })

  test('a session that was interrupted before does not connect', async () => {
    const { server, transport } = await reach()
    expect(await codeOf(transport.exec('true', { signal: AbortSignal.abort() }))).toBe('interrupted')
    expect(server.connections).toBe(0)
  })

  test('a session does not wait for a login that never ends when it is interrupted', async () => {
    const { transport } = await reach({ dial: await mute() })
    const abort = new AbortController()
    const running = codeOf(transport.exec('true', { signal: abort.signal }))
    await delay(100)
    abort.abort()
    expect(await Promise.race([running, delay(2000, 'still waiting')])).toBe('interrupted')
  })

  test('a session that is interrupted during the login does not run the command', async () => {
    const server = await TestSshServer.start()
    const endpoint = server.endpoint()
    const abort = new AbortController()
    const transport = sshTransport({
      ...endpoint,
      dial: async () => {
        const socket = await endpoint.dial()
        abort.abort()
        return socket
      },
    })
    onTestFinished(() => transport.close())
    expect(await codeOf(transport.exec('echo ran', { signal: abort.signal }))).toBe('interrupted')
    expect(await transport.exec('echo other', {})).toMatchObject({ stdout: 'other\n' })
  })
})

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
