import { timingSafeEqual } from 'node:crypto'
import { type Duplex, Readable } from 'node:stream'
import { NodeSSH } from 'node-ssh'
import type { ConnectConfig } from 'ssh2'
import { Interrupted, LabError, messageOf, unlessAborted } from '../error.js'
import type { CommandResult, ExecOptions, Transport } from './machine.js'

export interface SshEndpoint {
  /** For messages: `worker1 (192.168.56.21)`. */
  readonly address: string
  readonly user: string
  readonly privateKey: string
  /** The only host key that is accepted, as in known_hosts: base64 of the key blob. */
  readonly hostKey: string
  /** All timeouts are that many times longer. Default: 1. */
  readonly patience?: number
  /** A fresh TCP connection to the SSH server. */
  dial(): Promise<Duplex>
}

/** Seconds. A busy machine may need several for its banner and the key exchange. */
const loginTimeout = 20

/** A connection that is open, or on its way to be. */
interface Connection {
  readonly ready: Promise<NodeSSH>
  /** Ends it at once, also in the middle of its login. */
  readonly end: () => void
}

/** @param lost is told as soon as the connection is of no use any more */
const connect = (endpoint: SshEndpoint, lost: () => void): Connection => {
  const ended = new AbortController()
  const end = (): void => {
    lost()
    ended.abort()
  }

  const logIn = async (): Promise<NodeSSH> => {
    const sock = await endpoint.dial()
    if (ended.signal.aborted) sock.destroy()
    ended.signal.throwIfAborted()
    ended.signal.addEventListener('abort', () => sock.destroy())
    sock.once('end', end).once('close', end)
    const ssh = new NodeSSH()
    const expected = Buffer.from(endpoint.hostKey, 'base64')
    const config: ConnectConfig = {
      sock,
      username: endpoint.user,
      privateKey: endpoint.privateKey,
      readyTimeout: loginTimeout * (endpoint.patience ?? 1) * 1000,
      keepaliveInterval: 10_000,
      keepaliveCountMax: 3,
      hostVerifier: (key: Buffer) => key.length === expected.length && timingSafeEqual(key, expected),
      // The first of each that OpenSSH offers and Node computes natively.
      algorithms: {
        kex: ['curve25519-sha256'],
        serverHostKey: ['ssh-ed25519'],
        cipher: ['aes128-gcm@openssh.com'],
      },
    }
    await ssh.connect(config as Parameters<NodeSSH['connect']>[0])
    // Checks of one machine run side by side, each with listeners of its own while it runs.
    ssh.connection?.setMaxListeners(0).on('error', end)
    return ssh
  }

  const ready = unlessAborted(ended.signal, logIn()).catch((error: unknown) => {
    end()
    throw new LabError('ssh-unreachable', `${endpoint.address}: no SSH: ${messageOf(error)}`, {
      cause: error,
    })
  })
  return { ready, end }
}

/** A whole script would hide what became of it. */
const brief = (command: string): string => {
  const [first = ''] = command.split('\n')
  return command.length <= 200 ? command : `${first.slice(0, 160)}…`
}

/** Fails when the work takes longer than this many seconds. */
const within = async <T>(seconds: number, work: Promise<T>, late: () => LabError): Promise<T> => {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(late())
    }, seconds * 1000)
  })
  try {
    return await Promise.race([work, deadline])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * One connection, opened when it is first needed, kept, and opened anew after it was lost: a login costs
 * a User-Mode Linux machine half a second of CPU, a command on an open connection a twentieth.
 */
export const sshTransport = (endpoint: SshEndpoint): Transport => {
  const { address } = endpoint
  let connection: Connection | undefined

  const connected = (): Promise<NodeSSH> => {
    if (!connection) {
      const made = connect(endpoint, () => {
        if (connection === made) connection = undefined
      })
      connection = made
    }
    return connection.ready
  }

  /** @param givenUp whoever asked for it no longer waits: it must not go on, nor begin */
  const run = async (
    command: string,
    { input, timeout: usual = 60 }: ExecOptions,
    givenUp: AbortSignal,
  ): Promise<CommandResult> => {
    const timeout = usual * (endpoint.patience ?? 1)
    const ssh = await connected()
    givenUp.throwIfAborted()
    // Bytes, until all are there: a letter may arrive in two pieces.
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    const running = ssh.execCommand(command, {
      ...(input === undefined ? {} : { stdin: Readable.from([input]) }),
      onChannel: (channel) => {
        const close = (): void => {
          channel.close()
        }
        if (givenUp.aborted) close()
        givenUp.addEventListener('abort', close)
      },
      onStdout: (chunk) => stdout.push(chunk),
      onStderr: (chunk) => stderr.push(chunk),
    })
    const late = (): LabError =>
      new LabError('command-timeout', `${address}: no answer within ${String(timeout)} s: ${brief(command)}`)
    const { code, signal } = await within(timeout, running, late).catch((error: unknown) => {
      if (error instanceof LabError) throw error
      // The connection, or only a channel of it, as where sshd allows no more of them: others may go on.
      throw new LabError('ssh-lost', `${address}: ${messageOf(error)}`, { cause: error })
    })
    // node-ssh reports a connection that dropped under a command as a result without a code.
    if (code === null && signal === null)
      throw new LabError('ssh-lost', `${address}: the connection was lost during: ${brief(command)}`)
    return {
      exitCode: code ?? 128,
      stdout: Buffer.concat(stdout).toString('utf8'),
      stderr: Buffer.concat(stderr).toString('utf8'),
    }
  }

  return {
    address,
    exec: async (command, options) => {
      const { signal } = options
      if (signal?.aborted) throw new Interrupted()
      const givenUp = new AbortController()
      try {
        const running = run(command, options, givenUp.signal)
        return await (signal ? unlessAborted(signal, running) : running)
      } catch (error) {
        givenUp.abort()
        throw error
      }
    },
    close: () => {
      connection?.end()
      return Promise.resolve()
    },
  }
}
