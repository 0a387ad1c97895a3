/** Offers a bundle to the other computers of a room. Any web server would do; this one serves only the bundle. */
import { createReadStream, type Stats } from 'node:fs'
import { open } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { chunkPath, makerFile, type Manifest, manifestFile, signatureFile } from './manifest.js'

/** Concurrent connections: four for each of thirty computers, and as many again. */
const mostConnections = 256

/** The range `bytes=5-`, `bytes=5-9` or `bytes=-5` of a file; undefined: the whole file; `'none'`: an empty range. */
export const rangeOf = (
  header: string | undefined,
  size: number,
): { readonly first: number; readonly last: number } | 'none' | undefined => {
  const [, from = '', to = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? []
  if (from === '' && to === '') return undefined
  const first = from === '' ? Math.max(0, size - Number(to)) : Number(from)
  const last = from === '' || to === '' ? size - 1 : Math.min(Number(to), size - 1)
  return first > last ? 'none' : { first, last }
}

/** Everything that belongs to the bundle, but no other files of its folder. */
const filesOf = ({ parts, program }: Manifest): ReadonlySet<string> =>
  new Set([
    manifestFile,
    signatureFile,
    makerFile,
    ...program.map(({ path }) => path),
    ...parts.flatMap(({ files }) =>
      files.flatMap(({ chunks }) => chunks.map(({ sha256 }) => chunkPath(sha256))),
    ),
  ])

/** @param told called for each answer, with the client, the request and the result */
export const bundleServer = (
  folder: string,
  manifest: Manifest,
  told: (line: string) => void = () => undefined,
): Server => {
  const files = filesOf(manifest)
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = decodeURIComponent((request.url ?? '/').split('?')[0] ?? '').replace(/^\/+/, '')
    const end = (status: number, headers: Record<string, string | number> = {}): void => {
      response.writeHead(status, { 'content-length': 0, ...headers }).end()
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      end(405, { allow: 'GET, HEAD' })
      return
    }
    if (!files.has(path)) {
      end(404)
      return
    }
    const handle = await open(join(folder, path), 'r')
    let stats: Stats
    try {
      stats = await handle.stat()
    } finally {
      await handle.close()
    }
    const range = rangeOf(request.headers.range, stats.size)
    if (range === 'none') {
      end(416, { 'content-range': `bytes */${String(stats.size)}` })
      return
    }
    const { first, last } = range ?? { first: 0, last: stats.size - 1 }
    response.writeHead(range ? 206 : 200, {
      'content-type': 'application/octet-stream',
      'content-length': last - first + 1,
      'accept-ranges': 'bytes',
      'x-content-type-options': 'nosniff',
      'cache-control': path.startsWith('chunks/') ? 'public, max-age=31536000, immutable' : 'no-cache',
      ...(range ? { 'content-range': `bytes ${String(first)}-${String(last)}/${String(stats.size)}` } : {}),
    })
    if (request.method === 'HEAD' || stats.size === 0) return void response.end()
    const stream = createReadStream(join(folder, path), { start: first, end: last })
    stream.on('error', () => response.destroy())
    response.on('close', () => stream.destroy())
    stream.pipe(response)
  }
  const server = createServer((request, response) => {
    response.on('finish', () => {
      if (!request.url?.startsWith('/chunks/'))
        told(
          `${request.socket.remoteAddress ?? ''} ${request.method ?? ''} ${request.url ?? ''}: ${String(response.statusCode)}`,
        )
    })
    answer(request, response).catch(() => {
      if (!response.headersSent) response.writeHead(500, { 'content-length': 0 })
      response.end()
    })
  })
  server.maxConnections = mostConnections
  server.headersTimeout = 10_000
  server.requestTimeout = 30_000
  return server
}
