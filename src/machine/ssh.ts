import { timingSafeEqual } from 'node:crypto'
import { type Duplex, Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { NodeSSH } from 'node-ssh'
import type { Algorithms, ConnectConfig, ServerHostKeyAlgorithm } from 'ssh2'
import { inTurns } from '../concurrent.js'
import { Interrupted, LabError, messageOf, unlessAborted } from '../error.js'
import type { CommandResult, ExecOptions, Transport } from './machine.js'
import { quote } from './sh.js'

export interface SshEndpoint {
  /** For messages: `worker1 (192.168.56.21)`. */
  readonly address: string
  readonly user: string
  /** How the user authenticates: one of these. */
  readonly privateKey?: string
  readonly password?: string
  /** The socket of an SSH agent. */
  readonly agent?: string
  /** The only host key that is accepted, as in known_hosts: base64 of the key blob. */
  readonly hostKey: string
  /** The factor for all timeouts. Default: 1. */
  readonly slowdown?: number
  /** Concurrent commands on one connection; more wait. Default: as many as there are. */
  readonly sessions?: number
  /** Seconds to try again while the server closes connections before a login. Default: 0. */
  readonly patience?: number
  /** A fresh TCP connection to the SSH server. */
  dial(): Promise<Duplex>
}

/** Half of OpenSSH's default MaxSessions: the server counts a session for a moment after its end. */
export const defaultSessions = 5

/** Seconds. A busy machine may need several for its banner and the key exchange. */
const loginTimeout = 20

/** A connection that is open or being opened. */
interface Connection {
  readonly ready: Promise<NodeSSH>
  /** Ends it at once, even during its login. */
  readonly end: () => void
}

/** The first of each that OpenSSH offers and Node computes natively. */
const algorithms: Algorithms = { kex: ['curve25519-sha256'], cipher: ['aes128-gcm@openssh.com'] }

/** What a server with this key is asked to sign with. */
const signaturesOf = (blob: Buffer): ServerHostKeyAlgorithm[] => {
  const kind = blob.length < 4 ? '' : blob.subarray(4, 4 + blob.readUInt32BE(0)).toString('latin1')
  return kind === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [kind as ServerHostKeyAlgorithm]
}

/** The reason why a login failed; its code decides what to do. */
const loginFailure = (address: string, user: string, denied: boolean, cause: unknown): LabError => {
  if (denied)
    return new LabError('host-key-changed', `${address}: the host key differs from the pinned one`, { cause })
  if ((cause as { level?: string }).level === 'client-authentication')
    return new LabError('login-refused', `${address}: cannot log in as ${user}: ${messageOf(cause)}`, {
      cause,
    })
  if (cause instanceof ClosedByServer)
    return new LabError(
      'ssh-closed',
      `${address}: it closes the connection before a login: it is no SSH server, or it refuses this computer for a while after failed logins`,
      { cause },
    )
  return new LabError('ssh-unreachable', `${address}: no SSH: ${messageOf(cause)}`, { cause })
}

/** The server ended the connection before the login was over. */
class ClosedByServer extends Error {}

/** Milliseconds in which the reason for the end of a connection arrives, if there is one. */
const reasonTime = 500

/**
 * Milliseconds between two attempts on a server that closes connections. OpenSSH 9.8 and later refuse an address for 15
 * seconds and longer after several failed logins (PerSourcePenalties).
 */
const penaltyPause = 3000

/** @param lost called as soon as the connection is no longer usable */
const connect = (endpoint: SshEndpoint, lost: () => void): Connection => {
  const ended = new AbortController()
  const end = (): void => {
    lost()
    ended.abort()
  }

  let denied = false
  const logInOnce = async (): Promise<NodeSSH> => {
    const sock = await endpoint.dial()
    if (ended.signal.aborted) sock.destroy()
    ended.signal.throwIfAborted()
    ended.signal.addEventListener('abort', () => sock.destroy())
    let [loggedIn, peerEnded] = [false as boolean, false as boolean]
    sock.once('end', () => (peerEnded = true))
    const closed = new Promise<never>((_, reject) => {
      const close = (): void => {
        if (loggedIn) end()
        // A refused login closes it as well, and says why.
        else setTimeout(() => reject(new ClosedByServer('the connection was closed')), reasonTime)
      }
      sock.once('end', close).once('close', close)
    })
    closed.catch(() => undefined)
    const ssh = new NodeSSH()
    const expected = Buffer.from(endpoint.hostKey, 'base64')
    const config: ConnectConfig = {
      sock,
      username: endpoint.user,
      ...(endpoint.privateKey === undefined ? {} : { privateKey: endpoint.privateKey }),
      ...(endpoint.password === undefined ? {} : { password: endpoint.password }),
      ...(endpoint.agent === undefined ? {} : { agent: endpoint.agent }),
      readyTimeout: loginTimeout * (endpoint.slowdown ?? 1) * 1000,
      keepaliveInterval: 10_000,
      keepaliveCountMax: 3,
      hostVerifier: (key: Buffer) => {
        denied = key.length !== expected.length || !timingSafeEqual(key, expected)
        return !denied
      },
      algorithms: { ...algorithms, serverHostKey: signaturesOf(expected) },
    }
    const connecting = ssh.connect(config as Parameters<NodeSSH['connect']>[0]).catch((error: unknown) => {
      // The library reports it as an error of the protocol, or of the socket if it was reset.
      const { level } = error as { level?: string }
      const lostIt = level === 'client-socket' || (level === 'protocol' && peerEnded)
      if (!lostIt || denied) throw error
      throw new ClosedByServer('the connection was closed', { cause: error })
    })
    await Promise.race([connecting, closed])
    loggedIn = true
    // Checks of one machine run concurrently, each with listeners of its own.
    ssh.connection?.setMaxListeners(0).on('error', end)
    return ssh
  }

  const logIn = async (): Promise<NodeSSH> => {
    const until = performance.now() + (endpoint.patience ?? 0) * 1000
    for (;;)
      try {
        return await logInOnce()
      } catch (error) {
        if (!(error instanceof ClosedByServer) || performance.now() >= until) throw error
        await delay(penaltyPause, undefined, { signal: ended.signal })
      }
  }

  const ready = unlessAborted(ended.signal, logIn()).catch((error: unknown) => {
    end()
    throw loginFailure(endpoint.address, endpoint.user, denied, error)
  })
  return { ready, end }
}

/** Shortens a script, which would hide the result. */
const brief = (command: string): string => {
  const [first = ''] = command.split('\n')
  return command.length <= 200 ? command : `${first.slice(0, 160)}…`
}

/** Rejects if the work takes longer than this many seconds. */
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
 * One connection, which is opened on demand, kept, and reopened after a loss: a login costs a User-Mode Linux machine
 * half a second of CPU time, a command on an open connection a twentieth.
 */
export const sshTransport = (endpoint: SshEndpoint): Transport => {
  const { address } = endpoint
  const inTurn = inTurns(endpoint.sessions ?? Infinity)
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

  /** @param givenUp aborted when the caller no longer waits: the command must not start or continue */
  const run = async (
    command: string,
    { input, timeout: usual = 60 }: ExecOptions,
    givenUp: AbortSignal,
  ): Promise<CommandResult> => {
    const timeout = usual * (endpoint.slowdown ?? 1)
    const ssh = await connected()
    givenUp.throwIfAborted()
    // Bytes until all have arrived: a character may be split between two packets.
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
      // The connection is lost, or only one channel was refused, for example by MaxSessions: other commands continue.
      throw new LabError('ssh-lost', `${address}: ${messageOf(error)}`, { cause: error })
    })
    // node-ssh reports a connection that drops during a command as a result without an exit code.
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
        const running = inTurn(() => run(command, options, givenUp.signal))
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

/** A TCP connection from a machine to which one can log in. Closing it ends the login, too. */
export const dialThrough = async (endpoint: SshEndpoint, host: string, port: number): Promise<Duplex> => {
  const { ready, end } = connect(endpoint, () => undefined)
  const ssh = await ready
  try {
    const channel = await ssh.forwardOut('127.0.0.1', 0, host, port)
    return channel.once('close', end)
  } catch (error) {
    end()
    throw new LabError(
      'ssh-unreachable',
      `${host}:${String(port)}: cannot be reached from ${endpoint.address}: ${messageOf(error)}`,
      { cause: error },
    )
  }
}

/** The kinds of host keys to request, in this order: those that OpenSSH generates by itself. */
const hostKeyKinds: ServerHostKeyAlgorithm[] = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
]

/**
 * The key that a server presents, `ssh-ed25519 AAAA…`: nothing proves that it is the right one. No login is attempted.
 */
export const shownHostKey = async (address: string, dial: () => Promise<Duplex>): Promise<string> => {
  const { default: ssh2 } = await import('ssh2')
  const client = new ssh2.Client()
  try {
    const sock = await dial()
    return await new Promise<string>((resolve, reject) => {
      client
        .once('error', reject)
        .once('close', () => {
          reject(new Error('the connection was closed'))
        })
        .connect({
          sock,
          username: 'nobody',
          readyTimeout: loginTimeout * 1000,
          algorithms: { ...algorithms, serverHostKey: hostKeyKinds },
          hostVerifier: (blob: Buffer) => {
            const kind = blob.subarray(4, 4 + blob.readUInt32BE(0)).toString('latin1')
            resolve(`${kind} ${blob.toString('base64')}`)
            return false
          },
        })
    })
  } catch (error) {
    throw new LabError('ssh-unreachable', `${address}: no SSH: ${messageOf(error)}`, { cause: error })
  } finally {
    // Late messages of the closed connection do not matter.
    client.on('error', () => undefined).destroy()
  }
}

/** Runs everything as root although another user logs in. @param password for sudo; undefined: sudo must not ask */
export const throughSudo = (transport: Transport, password?: string): Transport => ({
  ...transport,
  exec: (command, options) => {
    const inner = `sh -c ${quote(command)}`
    if (password === undefined) return transport.exec(`sudo -n -- ${inner}`, options)
    // -k: sudo always asks, so that the password is never read as the command's own input.
    const input = Buffer.concat([Buffer.from(`${password}\n`), Buffer.from(options.input ?? '')])
    return transport.exec(`sudo -k -S -p '' -- ${inner}`, { ...options, input })
  },
})
