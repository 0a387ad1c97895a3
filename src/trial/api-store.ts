/** ConfigMaps, written through the address of the API server, as a controller outside a pod would write them. */
import type { Duplex } from 'node:stream'
import { readFile } from 'node:fs/promises'
import { Agent, type RequestOptions, request } from 'node:https'
import { connect, type TLSSocket } from 'node:tls'
import { apiAddressOf } from '../lab/lab.js'
import { pathsOf } from '../state.js'
import { type Dialer, longTimeout, retryUntilAborted, type Session, type Store } from './store.js'
import type { ReadBack, Server } from './ledger.js'

/** Timeout of one request in milliseconds; etcd itself gives up after 7 s without a leader. */
const patience = 1500

const port = 6443

interface Credentials {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** The credentials of this host's `kubectl`, from its kubeconfig. */
const credentialsIn = (kubeconfig: string): Credentials => {
  const text = (field: string): string =>
    Buffer.from(new RegExp(`^ *${field}: (\\S+)$`, 'm').exec(kubeconfig)?.[1] ?? '', 'base64').toString()
  return {
    ca: text('certificate-authority-data'),
    cert: text('client-certificate-data'),
    key: text('client-key-data'),
  }
}

/**
 * Which API server answered: its certificate names its own machine, and no other.
 * @param machines names of the control planes
 */
export const serverOf = (names: string | undefined, machines: readonly string[]): Server => {
  const dns = (names ?? '').split(', ').map((name) => name.replace(/^DNS:/, ''))
  const node = machines.find((machine) => dns.includes(machine)) ?? 'an unknown machine'
  return { pod: `kube-apiserver-${node}`, node }
}

interface Answer {
  readonly status: number
  readonly text: string
  readonly server: Server
}

/** One connection to the address of the API server, with one request at a time. */
class ApiConnection {
  readonly #socket: TLSSocket
  readonly #agent: Agent
  readonly #machines: readonly string[]

  private constructor(socket: TLSSocket, machines: readonly string[]) {
    this.#socket = socket
    this.#machines = machines
    socket.on('error', () => undefined)
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 })
    this.#agent.createConnection = () => socket
  }

  /** @throws if no server answers in time */
  static async open(dialer: Dialer, credentials: Credentials): Promise<ApiConnection> {
    const { lab, provider } = dialer
    const host = apiAddressOf(lab)
    const tunnel: Duplex = await provider.dial(lab, host, port)
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => tunnel.destroy(new Error('no handshake')), patience)
      const socket = connect({ socket: tunnel, host, ...credentials, checkServerIdentity: () => undefined })
      const fail = (error: Error): void => {
        clearTimeout(late)
        tunnel.destroy()
        reject(error)
      }
      tunnel.once('error', fail)
      socket.once('error', fail)
      socket.once('secureConnect', () => {
        clearTimeout(late)
        socket.off('error', fail)
        resolve(
          new ApiConnection(
            socket,
            lab.machines.filter(({ role }) => role === 'control-plane').map(({ name }) => name),
          ),
        )
      })
    })
  }

  /** @throws if no complete answer came within this many milliseconds, or the connection was lost */
  ask(method: string, path: string, body?: object, milliseconds = patience): Promise<Answer> {
    const server = serverOf(this.#socket.getPeerCertificate().subjectaltname, this.#machines)
    return new Promise((resolve, reject) => {
      const options: RequestOptions = {
        agent: this.#agent,
        method,
        path,
        headers: { accept: 'application/json', 'content-type': 'application/json' },
      }
      const asked = request(options, (response) => {
        let text = ''
        response.on('data', (chunk: Buffer) => (text += chunk.toString()))
        response.on('error', reject)
        response.on('end', () => {
          clearTimeout(late)
          resolve({ status: response.statusCode ?? 0, text, server })
        })
      })
      const late = setTimeout(
        () => asked.destroy(new Error(`no answer within ${String(milliseconds)} ms`)),
        milliseconds,
      )
      asked.on('error', (error) => {
        clearTimeout(late)
        reject(error)
      })
      asked.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  /** @throws with the API server's message, if it refuses */
  async must(method: string, path: string, body?: object, milliseconds?: number): Promise<Answer> {
    const answer = await this.ask(method, path, body, milliseconds)
    if (answer.status < 200 || answer.status > 299)
      throw new Error(`${String(answer.status)}: ${answer.text.slice(0, 200)}`)
    return answer
  }

  destroy(): void {
    this.#agent.destroy()
    this.#socket.destroy()
  }
}

interface ConfigMaps {
  readonly items: readonly {
    readonly metadata: { readonly name: string }
    readonly data?: { readonly content?: string }
  }[]
}

/** `write-12` */
const named = (seq: number): string => `write-${String(seq)}`

/** A ConfigMap that was not written by this run gets a number that no write has. */
export const configRead = ({ metadata, data }: ConfigMaps['items'][number]): ReadBack => ({
  seq: Number(/^write-(\d{1,15})$/.exec(metadata.name)?.[1] ?? 0),
  content: data?.content ?? '',
})

/** A namespace for a run, with a ConfigMap for each write. @param run letters, digits and `_` */
export const configStore = (dialer: Dialer, run: string): Store => {
  const namespace = run.replaceAll('_', '-')
  const maps = `/api/v1/namespaces/${namespace}/configmaps`
  let credentials: Promise<Credentials> | undefined
  const open = async (): Promise<ApiConnection> =>
    ApiConnection.open(
      dialer,
      await (credentials ??= readFile(pathsOf(dialer.lab).kubeconfig, 'utf8').then(credentialsIn)),
    )
  const once = async <T>(use: (api: ApiConnection) => Promise<T>): Promise<T> => {
    const api = await open()
    try {
      return await use(api)
    } finally {
      api.destroy()
    }
  }
  return {
    medium: 'config',
    connect: async (signal): Promise<Session> => {
      const api = await retryUntilAborted(signal, open)
      let last = 0
      return {
        address: `${apiAddressOf(dialer.lab)}:${String(port)}`,
        write: async (seq, content) => {
          const { server } = await api.must('POST', maps, {
            apiVersion: 'v1',
            kind: 'ConfigMap',
            metadata: { name: named(seq) },
            data: { content },
          })
          last = seq
          return server
        },
        // From etcd, not from the cache of the API server.
        read: async () =>
          (await api.must('GET', last > 0 ? `${maps}/${named(last)}` : `${maps}?limit=1`)).server,
        close: () => {
          api.destroy()
        },
      }
    },
    create: (signal) =>
      retryUntilAborted(signal, () =>
        once(async (api) => {
          const body = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }
          const { status, text } = await api.ask('POST', '/api/v1/namespaces', body, longTimeout)
          // It was made by an attempt whose answer was lost.
          if (status !== 201 && status !== 409) throw new Error(`${String(status)}: ${text.slice(0, 200)}`)
        }),
      ),
    readBack: (signal) =>
      retryUntilAborted(signal, () =>
        once(async (api) => {
          const { status, text } = await api.ask('GET', maps, undefined, longTimeout)
          if (status !== 200) throw new Error(`${String(status)}: ${text.slice(0, 200)}`)
          return (JSON.parse(text) as ConfigMaps).items
            .filter(({ metadata }) => metadata.name !== 'kube-root-ca.crt')
            .map(configRead)
        }),
      ),
    remove: (signal) =>
      retryUntilAborted(signal, () =>
        once(async (api) => {
          await api.must('DELETE', `/api/v1/namespaces/${namespace}`, undefined, longTimeout)
        }),
      ),
  }
}
