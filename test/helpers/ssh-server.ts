/** A real SSH server on a Unix socket. It admits one key, and runs commands in a real shell. */
import { makeKeyPair } from '../../src/machine/keys.js'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import ssh2, { type Connection } from 'ssh2'
import { onTestFinished } from 'vitest'
import type { SshEndpoint } from '../../src/machine/ssh.js'
import { temporaryFolder } from './folder.js'

/** Made once: a lab has only one key, too. */
export const clientKeys = makeKeyPair('test')
const hostKeys = makeKeyPair('test')

export const keyBlob = (publicKey: string): string => publicKey.split(' ')[1] ?? ''

export interface Ran {
  readonly command: string
  readonly process: ChildProcess
  /** The client closed the channel, or is gone. */
  channelClosed: boolean
}

export class TestSshServer {
  readonly path: string
  /** All connections so far. */
  connections = 0
  /** All clients that authenticated so far. */
  logins = 0
  /** All attempts to log in so far, good or bad. */
  attempts = 0
  readonly ran: Ran[] = []
  /** The server refuses further channels, like OpenSSH with MaxSessions. */
  full = false
  /** If set, this handles the client's commands instead of a shell. */
  instead: ((channel: ssh2.ServerChannel, command: string) => void) | undefined
  readonly #ssh: ssh2.Server
  readonly #listener: Server
  readonly #sockets = new Set<Socket>()

  constructor(path: string) {
    this.path = path
    this.#ssh = new ssh2.Server({ hostKeys: [hostKeys.privateKey] }, (client) => {
      this.#serve(client)
    })
    this.#listener = createServer((socket) => {
      this.connections++
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
      socket.on('error', () => undefined)
      this.#ssh.injectSocket(socket)
    })
  }

  static async start(): Promise<TestSshServer> {
    const server = new TestSshServer(join(await temporaryFolder(), 'sshd.sock'))
    await server.listen()
    onTestFinished(() => server.stop())
    return server
  }

  async listen(): Promise<void> {
    this.#listener.listen(this.path)
    await once(this.#listener, 'listening')
  }

  /** Connections that are open now. */
  get open(): number {
    return this.#sockets.size
  }

  /** Ends every connection without notice, as if the machine lost its power. */
  drop(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  async stop(): Promise<void> {
    this.drop()
    for (const { process: child } of this.ran) end(child)
    if (!this.#listener.listening) return
    this.#listener.close()
    await once(this.#listener, 'close')
  }

  endpoint(changes: Partial<SshEndpoint> = {}): SshEndpoint {
    return {
      address: 'worker1 (192.168.56.21)',
      user: 'root',
      privateKey: clientKeys.privateKey,
      hostKey: keyBlob(hostKeys.publicKey),
      dial: async () => {
        const socket = connect(this.path)
        await once(socket, 'connect')
        return socket
      },
      ...changes,
    }
  }

  #serve(client: Connection): void {
    const allowed = ssh2.utils.parseKey(clientKeys.publicKey)
    if (allowed instanceof Error) throw allowed
    client.setMaxListeners(0).on('error', () => undefined)
    client.on('authentication', (context) => {
      this.attempts++
      const known = context.method === 'publickey' && context.key.data.equals(allowed.getPublicSSH())
      if (!known) context.reject(['publickey'])
      else if (!context.signature || !context.blob) context.accept()
      else if (allowed.verify(context.blob, context.signature, context.hashAlgo)) context.accept()
      else context.reject(['publickey'])
    })
    client.on('ready', () => {
      this.logins++
      client.on('session', (accept, reject) => {
        if (this.full) {
          reject()
          return
        }
        accept().on('exec', (acceptExec, _reject, { command }) => {
          const channel = acceptExec()
          if (this.instead) this.instead(channel, command)
          else this.#run(client, channel, command)
        })
      })
    })
  }

  #run(client: Connection, channel: ssh2.ServerChannel, command: string): void {
    const child = spawn('/bin/sh', ['-c', command], { detached: true, stdio: 'pipe' })
    const ran: Ran = { command, process: child, channelClosed: false }
    this.ran.push(ran)
    channel.on('error', () => undefined)
    const loseClient = (): void => {
      ran.channelClosed = true
      // Like OpenSSH without a terminal: the command loses its pipes, and may continue.
      child.stdin.end()
      child.stdout.destroy()
      child.stderr.destroy()
    }
    channel.on('close', loseClient)
    client.on('close', loseClient)
    // A program that does not read its input is not an error: sshd does not report it either.
    child.stdin.on('error', () => undefined)
    channel.pipe(child.stdin)
    child.stdout.pipe(channel, { end: false })
    child.stderr.pipe(channel.stderr, { end: false })
    child.once('close', (code, signal) => {
      if (signal === null) channel.exit(code ?? 0)
      else channel.exit(signal.replace('SIG', ''), false, '')
      channel.end()
    })
  }
}

/** Kills the process and its children: each is the first of its own process group. */
const end = (child: ChildProcess): void => {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It ended in the meantime.
  }
}
