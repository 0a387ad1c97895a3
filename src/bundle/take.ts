/** Copies parts from a bundle into the cache: every chunk is compared with its digest before it is used. */
import { chmod, mkdir, open, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { brotliDecompress } from 'node:zlib'
import { forEachAtOnce } from '../concurrent.js'
import { Interrupted, LabError, messageOf } from '../error.js'
import type { Cache } from '../parts/cache.js'
import type { PartProgress, Preparation } from '../parts/preparation.js'
import { makeFolder } from '../trust.js'
import { type BundleFile, type BundlePart, type Chunk, chunkPath, sha256Of, storedBytes } from './manifest.js'
import type { Source } from './source.js'

const decompress = promisify(brotliDecompress)

/** Chunks that are processed at the same time: decompressing them can use more than one processor. */
const atOnce = 4
/** How often a chunk that does not match the manifest is fetched again. */
const attempts = 3
/** Zeros are not written: a base disk is mostly holes. */
const block = 64 * 1024
const zeros = Buffer.alloc(block)

const badChunk = (source: Source, { sha256 }: Chunk): LabError =>
  new LabError(
    'bad-chunk',
    `${source.name}: ${chunkPath(sha256)} did not match the manifest, ${String(attempts)} times in a row`,
    {
      hint: 'lab bundle check FOLDER, on the computer that has the bundle, names everything that is damaged',
    },
  )

/**
 * Where chunks from a network wait until their part is complete, so that the next attempt need not fetch them again.
 */
const incoming = (cache: Cache): string => join(cache.root, 'incoming')

/** The compressed chunk, as in the manifest. */
const fetchChunk = async (
  source: Source,
  chunk: Chunk,
  cache: Cache,
  signal: AbortSignal,
): Promise<Buffer> => {
  const kept = join(incoming(cache), chunk.sha256)
  if (source.remote) {
    const before = await readFile(kept).catch(() => undefined)
    if (before && sha256Of(before) === chunk.sha256) return before
  }
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const data = await source.read(chunkPath(chunk.sha256), chunk.stored, signal)
    if (sha256Of(data) !== chunk.sha256) continue
    if (source.remote) {
      await writeFile(`${kept}.${String(process.pid)}`, data)
      await rename(`${kept}.${String(process.pid)}`, kept)
    }
    return data
  }
  throw badChunk(source, chunk)
}

interface Taking {
  readonly source: Source
  readonly cache: Cache
  readonly signal: AbortSignal
  /** Called with the size of each chunk in the bundle. */
  readonly took: (stored: number) => void
}

const writeFileOf = async (
  file: BundleFile,
  path: string,
  { source, cache, signal, took }: Taking,
): Promise<void> => {
  await mkdir(dirname(path), { recursive: true })
  const handle = await open(path, 'wx+', 0o600)
  try {
    await handle.truncate(file.size)
    await forEachAtOnce(file.chunks, atOnce, async (chunk, stopped) => {
      if (signal.aborted) throw new Interrupted()
      const data = await decompress(
        await fetchChunk(source, chunk, cache, AbortSignal.any([signal, stopped])),
        {
          maxOutputLength: chunk.bytes,
        },
      )
      if (data.length !== chunk.bytes) throw badChunk(source, chunk)
      for (let at = 0; at < data.length; at += block) {
        const piece = data.subarray(at, at + block)
        if (!piece.equals(zeros.subarray(0, piece.length)))
          await handle.write(piece, 0, piece.length, chunk.at + at)
      }
      took(chunk.stored)
    })
    // Read back from the disk: nothing else would notice a chunk that was written to the wrong place.
    const hash = createHash('sha256')
    for (const { at, bytes } of file.chunks) {
      const buffer = Buffer.alloc(bytes)
      const { bytesRead } = await handle.read(buffer, 0, bytes, at)
      hash.update(buffer.subarray(0, bytesRead))
    }
    if (hash.digest('hex') !== file.sha256)
      throw new LabError(
        'bad-bundle',
        `${path}: after writing, it does not match the manifest of ${source.name}`,
        {
          hint: 'lab bundle check FOLDER; if that finds nothing, check this host’s disk and memory',
        },
      )
  } finally {
    await handle.close()
  }
  await chmod(path, file.mode)
  await utimes(path, file.modified, file.modified)
}

/**
 * Copies parts of a bundle into the cache, one after the other. Parts that exist are left alone, and chunks fetched
 * before an interruption are not fetched again.
 * @returns the bytes that were read from the bundle
 */
export const takeParts = async (
  source: Source,
  parts: readonly BundlePart[],
  cache: Cache,
  preparation: Preparation,
): Promise<number> => {
  let read = 0
  if (source.remote) await makeFolder(incoming(cache), 0o755)
  for (const [index, part] of parts.entries()) {
    const started = Date.now()
    const total = storedBytes([part])
    let taken = 0
    const tell = (state: PartProgress['state'], more: Partial<PartProgress> = {}): void =>
      preparation.progress({
        part: part.key.replace(/-[0-9a-f]{12}$/, ''),
        title: part.title,
        index: index + 1,
        total: parts.length,
        state,
        elapsed: Math.round((Date.now() - started) / 1000),
        ...more,
      })
    const stop = new AbortController()
    const signal = AbortSignal.any([preparation.signal, stop.signal])
    tell('building', { fraction: 0 })
    try {
      await cache.locked(
        part.key,
        async () => {
          if (cache.has(part.key)) return
          await cache.create(part.key, async (out) => {
            for (const file of part.files)
              await writeFileOf(file, join(out, file.path), {
                source,
                cache,
                signal,
                took: (stored) => {
                  taken += stored
                  read += stored
                  tell('building', {
                    fraction: taken / Math.max(1, total),
                    note: `${(taken / 1024 ** 2).toFixed(0)} of ${(total / 1024 ** 2).toFixed(0)} MiB from ${source.name}`,
                  })
                },
              })
          })
        },
        {
          signal,
          busy: (holder) => tell('waiting', { note: `${holder} is making it` }),
          lost: () =>
            stop.abort(
              new LabError('part-lock-lost', `${part.title}: another lab took it over`, {
                hint: 'run it again',
              }),
            ),
        },
      )
    } catch (error) {
      if (preparation.signal.aborted) throw new Interrupted()
      const said = stop.signal.aborted ? (stop.signal.reason as unknown) : error
      tell('failed', { note: messageOf(said) })
      throw said
    }
    tell('fetched', { fraction: 1, remaining: 0 })
    for (const { chunks } of source.remote ? part.files : [])
      for (const { sha256 } of chunks) await rm(join(incoming(cache), sha256), { force: true })
  }
  return read
}
