/** From where parts can be fetched ready-made. */
import { connect } from 'node:net'
import type { Part } from './part.js'
import { proxies } from './sandbox.js'

/** Milliseconds after which a silent host counts as unreachable. */
const connectTimeout = 5000

/**
 * Whether the host of an address answers. Without a connection, nothing is prepared for fetching and no time is lost.
 */
const answers = (url: URL): Promise<boolean> => {
  // A proxy may get through even if this host cannot.
  if (proxies.some((name) => process.env[name])) return Promise.resolve(true)
  return new Promise((resolve) => {
    const port = Number(url.port) || (url.protocol === 'http:' ? 80 : 443)
    const socket = connect({ host: url.hostname, port })
    const end = (reached: boolean) => () => {
      clearTimeout(late)
      socket.destroy()
      resolve(reached)
    }
    // Started before the connection, since resolving a name takes long without a name server.
    const late = setTimeout(end(false), connectTimeout)
    socket.once('connect', end(true)).once('error', end(false))
  })
}

/** Where these parts, by id, can be fetched ready-made, as far as that is known without asking. */
export const sourcesOf = async (parts: readonly Part[]): Promise<Map<string, URL>> => {
  const sources = parts.flatMap(({ id, fetch }) => {
    const url = fetch?.from()
    return url ? [[id, url] as const] : []
  })
  const reached = new Map<string, Promise<boolean>>()
  for (const [, url] of sources) if (!reached.has(url.host)) reached.set(url.host, answers(url))
  const found = new Map<string, URL>()
  for (const [id, url] of sources) if (await reached.get(url.host)) found.set(id, url)
  return found
}
