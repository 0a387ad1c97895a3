import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { sshTransport } from '../../src/machine/ssh.js'
import { temporaryFolder } from '../helpers/folder.js'
import { TestSshServer } from '../helpers/ssh-server.js'
import { codeOf, mute, reach } from './reach.js'

const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex')

/** Every byte value, in every order of two. */
const everyByte = Buffer.from(
  Array.from({ length: 256 * 256 * 2 }, (_, n) => (n % 2 ? n >> 1 : n >> 9) & 255),
)

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
