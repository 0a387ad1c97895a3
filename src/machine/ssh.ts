import { timingSafeEqual } from 'node:crypto'
import { type Duplex, Readable } from 'node:stream'
import { NodeSSH } from 'node-ssh'
import type { ConnectConfig } from 'ssh2'
import { Interrupted, LabError, messageOf } from '../error.js'
import type { CommandResult, ExecOptions, Transport } from './machine.js'

export interface SshEndpoint {
  /** For messages: `worker1 (192.168.56.21)`. */
  readonly address: string
  readonly user: string
  readonly privateKey: string
  /** The only host key that is accepted, as in known_hosts: base64 of the key blob. */
  readonly hostKey: string
  /** A fresh TCP connection to the SSH server. */
  dial(): Promise<Duplex>
}

/** Seconds. A busy machine may need several for its banner and the key exchange. */
const loginTimeout = 20

/**
 * One connection, opened when it is first needed, kept, and opened anew after it was lost: a login costs
 * a User-Mode Linux machine half a second of CPU, a command on an open connection a twentieth.
 */
export const sshTransport = (endpoint: SshEndpoint): Transport => {
  let connection: Promise<NodeSSH> | undefined

  const connect = async (): Promise<NodeSSH> => {
    const sock = await endpoint.dial()
    const ssh = new NodeSSH()
    const expected = Buffer.from(endpoint.hostKey, 'base64')
    const config: ConnectConfig = {
      sock: sock as NonNullable<ConnectConfig['sock']>,
      username: endpoint.user,
      privateKey: endpoint.privateKey,
      readyTimeout: loginTimeout * 1000,
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
    try {
      await ssh.connect(config as Parameters<NodeSSH['connect']>[0])
    } catch (error) {
      sock.destroy()
      throw error
    }
    const forget = () => {
      connection = undefined
    }
    // Checks of one machine run side by side, each with listeners of its own while it runs.
    ssh.connection?.setMaxListeners(0).on('close', forget).on('error', forget)
    return ssh
  }

  const connected = (): Promise<NodeSSH> => {
    connection ??= connect().catch((error: unknown) => {
      connection = undefined
      throw new LabError('ssh-unreachable', `${endpoint.address}: no SSH: ${messageOf(error)}`, {
        cause: error,
      })
    })
    return connection
  }

  const exec = async (
    command: string,
    { input, signal, timeout = 60 }: ExecOptions,
  ): Promise<CommandResult> => {
    if (signal?.aborted) throw new Interrupted()
    const ssh = await connected()
    let end: (() => void) | undefined
    let timer: NodeJS.Timeout | undefined
    let onAbort: () => void = () => undefined
    const stopped = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        end?.()
        reject(
          new LabError(
            'command-timeout',
            `${endpoint.address}: no answer within ${String(timeout)} s: ${command}`,
          ),
        )
      }, timeout * 1000)
      onAbort = () => {
        end?.()
        reject(new Interrupted())
      }
      signal?.addEventListener('abort', onAbort, { once: true })
    })
    stopped.catch(() => undefined)
    try {
      const result = await Promise.race([
        ssh.execCommand(command, {
          noTrim: true,
          ...(input === undefined ? {} : { stdin: Readable.from([input]) }),
          onChannel: (channel) => {
            end = () => channel.close()
            // A caller that already gave up must not leave its command running.
            if (signal?.aborted) end()
          },
        }),
        stopped,
      ])
      // node-ssh reports a connection that dropped under a command as a result without a code.
      if (result.code === null && result.signal === null) {
        connection = undefined
        throw new LabError('ssh-lost', `${endpoint.address}: the connection was lost during: ${command}`)
      }
      return { exitCode: result.code ?? 128, stdout: result.stdout, stderr: result.stderr }
    } catch (error) {
      if (error instanceof LabError) throw error
      connection = undefined
      throw new LabError('ssh-lost', `${endpoint.address}: ${messageOf(error)}`, { cause: error })
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  return {
    address: endpoint.address,
    exec,
    close: async () => {
      const open = connection
      connection = undefined
      if (open) await open.then((ssh) => ssh.dispose()).catch(() => undefined)
    },
  }
}
