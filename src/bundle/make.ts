/** Makes a bundle of parts that are in the cache. */
import {
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { createHash, type Hash } from 'node:crypto'
import { join, relative } from 'node:path'
import { promisify } from 'node:util'
import { brotliCompress, constants } from 'node:zlib'
import { forEachAtOnce } from '../concurrent.js'
import { exitCodes, Interrupted, LabError } from '../error.js'
import { makeFolder } from '../trust.js'
import { version } from '../package.js'
import type { Maker } from './makers.js'
import {
  type BundleFile,
  type BundlePart,
  type Chunk,
  chunkPath,
  chunkSize,
  makerFile,
  type Manifest,
  manifestFile,
  readManifest,
  sha256Of,
  signatureFile,
  signManifest,
} from './manifest.js'
import type { ProgramFile } from './program.js'

const compress = promisify(brotliCompress)

/**
 * Brotli's quality, 0 to 11: with this one, a base disk shrinks to 29.6 % of its size at 113 MiB/s per core; with 4 it
 * would be 28.5 % at 43 MiB/s.
 */
const quality = 2

/** Chunks that are compressed at the same time. */
const atOnce = 4

const zeros = Buffer.alloc(chunkSize)

export interface WantedPart {
  readonly key: string
  readonly title: string
  /** Its folder in the cache. */
  readonly path: string
}

/** All files of a folder, at any depth, sorted by name. @throws for anything but an ordinary file */
const filesIn = async (folder: string): Promise<readonly string[]> => {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => {
      const path = join(entry.parentPath, entry.name)
      if (!entry.isFile()) throw new Error(`${path} is not an ordinary file, so a bundle cannot hold it`)
      return relative(folder, path)
    })
    .sort()
}

interface Making {
  readonly into: string
  readonly signal: AbortSignal
  /** Digests of the chunks that belong to this bundle. */
  readonly used: Set<string>
  /** Called with a file's size and how much of it is done, in bytes. */
  readonly tell: (done: number, size: number) => void
}

/** Whether a chunk is in the bundle, undamaged. */
const hasChunk = async (into: string, sha256: string): Promise<boolean> => {
  const data = await readFile(join(into, chunkPath(sha256))).catch(() => undefined)
  return data !== undefined && sha256Of(data) === sha256
}

const storeChunk = async (at: number, data: Buffer, { into, used }: Making): Promise<Chunk> => {
  const stored = await compress(data, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: quality,
      [constants.BROTLI_PARAM_LGWIN]: 23,
      [constants.BROTLI_PARAM_SIZE_HINT]: data.length,
    },
  })
  const sha256 = sha256Of(stored)
  const path = join(into, chunkPath(sha256))
  used.add(sha256)
  if (!(await hasChunk(into, sha256))) {
    await mkdir(join(path, '..'), { recursive: true })
    await writeFile(`${path}.new`, stored)
    await rename(`${path}.new`, path)
  }
  return { at, bytes: data.length, sha256, stored: stored.length }
}

/** The chunks of an open file that are not all zeros, each with its offset. They are hashed in their order. */
async function* chunksOf(
  handle: FileHandle,
  size: number,
  path: string,
  hash: Hash,
  { signal, tell }: Making,
): AsyncGenerator<{ readonly at: number; readonly data: Buffer }> {
  for (let at = 0; at < size; at += chunkSize) {
    if (signal.aborted) throw new Interrupted()
    const data = Buffer.alloc(Math.min(chunkSize, size - at))
    let has = 0
    while (has < data.length) {
      const { bytesRead } = await handle.read(data, has, data.length - has, at + has)
      if (bytesRead === 0) throw new Error(`${path} became shorter while it was read`)
      has += bytesRead
    }
    tell(at, size)
    if (data.equals(zeros.subarray(0, data.length))) continue
    hash.update(data)
    yield { at, data }
  }
}

const storeFile = async (folder: string, name: string, making: Making): Promise<BundleFile> => {
  const path = join(folder, name)
  const handle = await open(path, 'r')
  try {
    const { size, mode, mtimeMs } = await handle.stat()
    const hash = createHash('sha256')
    const chunks: Chunk[] = []
    await forEachAtOnce(chunksOf(handle, size, path, hash, making), atOnce, async ({ at, data }) => {
      chunks.push(await storeChunk(at, data, making))
    })
    return {
      path: name,
      size,
      mode: mode & 0o777,
      modified: Math.floor(mtimeMs / 1000),
      sha256: hash.digest('hex'),
      chunks: chunks.sort((a, b) => a.at - b.at),
    }
  } finally {
    await handle.close()
  }
}

/**
 * @throws LabError `not-a-bundle` for a folder that contains something else, because chunks that no bundle needs are
 * removed
 */
const refuseOther = async (into: string): Promise<void> => {
  const entries: readonly string[] = await readdir(into).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  })
  if (entries.length === 0 || entries.includes(manifestFile)) return
  // An interrupted run leaves chunks, but no manifest.
  if (entries.every((name) => ['chunks', 'lab'].includes(name))) return
  throw new LabError('not-a-bundle', `${into} already contains something else`, {
    hint: `use another folder: --into ${into.replace(/\/$/, '')}/lab-bundle`,
    exitCode: exitCodes.usage,
  })
}

/** Makes the folder of a bundle. @throws LabError if it cannot be made, or contains something else */
export const openFolder = async (into: string): Promise<void> => {
  await refuseOther(into)
  await makeFolder(into, 0o755)
}

/** The parts of an earlier bundle in this folder: none unless this maker signed it. */
const earlierParts = async (
  into: string,
  { fingerprint, publicKey }: Maker,
): Promise<readonly BundlePart[]> => {
  try {
    const [bytes, signature] = await Promise.all(
      [manifestFile, signatureFile].map((name) => readFile(join(into, name))),
    )
    if (!bytes || !signature) return []
    const read = readManifest(into, { bytes, signature, maker: publicKey })
    return read.fingerprint === fingerprint ? read.manifest.parts : []
  } catch {
    // It is not there, damaged, or somebody else's: everything is compressed anew.
    return []
  }
}

/** Whether every chunk of a part is in the bundle, undamaged. */
const isStored = async ({ files }: BundlePart, into: string, signal: AbortSignal): Promise<boolean> => {
  for (const { chunks } of files)
    for (const { sha256 } of chunks) {
      if (signal.aborted) throw new Interrupted()
      if (!(await hasChunk(into, sha256))) return false
    }
  return true
}

/** Removes chunks of an earlier bundle in this folder. */
const sweep = async (into: string, used: ReadonlySet<string>): Promise<void> => {
  const root = join(into, 'chunks')
  for (const folder of await readdir(root).catch(() => []))
    if (/^[0-9a-f]{2}$/.test(folder))
      for (const name of await readdir(join(root, folder)))
        if (!used.has(name)) await rm(join(root, folder, name), { force: true })
}

export interface Made {
  readonly manifest: Manifest
  /** The size of the whole bundle. */
  readonly bytes: number
}

/**
 * Writes a bundle. The manifest is written last: without it, the folder is not a bundle. A part that this maker's
 * earlier bundle in the folder has is kept, because its key is the hash of its inputs. A chunk that an interrupted run
 * wrote is found by its digest: it is compressed again, but not written again.
 * @param tell called with the part, the fraction that is done (0 to 1), and a word about it
 */
export const makeBundle = async (
  into: string,
  {
    labs,
    parts,
    maker,
    addProgram,
    signal,
    tell,
  }: {
    readonly labs: readonly string[]
    readonly parts: readonly WantedPart[]
    readonly maker: Maker
    /** Adds `lab` itself. */
    readonly addProgram: (into: string, signal: AbortSignal) => Promise<readonly ProgramFile[]>
    readonly signal: AbortSignal
    readonly tell: (title: string, fraction: number) => void
  },
): Promise<Made> => {
  await openFolder(into)
  const earlier = await earlierParts(into, maker)
  // From now on it is not a bundle until it is complete.
  for (const name of [manifestFile, signatureFile]) await rm(join(into, name), { force: true })
  const used = new Set<string>()
  const made: BundlePart[] = []
  for (const { key, title, path } of parts) {
    const kept = earlier.find((part) => part.key === key)
    if (kept && (await isStored(kept, into, signal))) {
      for (const { chunks } of kept.files) for (const { sha256 } of chunks) used.add(sha256)
      made.push({ ...kept, title })
      continue
    }
    const files: BundleFile[] = []
    for (const name of await filesIn(path))
      files.push(
        await storeFile(path, name, {
          into,
          signal,
          used,
          tell: (done, size) => tell(title, done / Math.max(1, size)),
        }),
      )
    made.push({ key, title, files })
  }
  tell('lab itself and its npm packages', 0)
  const program = await addProgram(into, signal)
  await sweep(into, used)
  const manifest: Manifest = {
    schema: 'lab.bundle/v1',
    version,
    made: new Date().toISOString(),
    labs: [...labs],
    parts: made,
    program: [...program],
  }
  const bytes = Buffer.from(`${JSON.stringify(manifest)}\n`)
  await writeFile(join(into, makerFile), maker.publicKey)
  await writeFile(join(into, signatureFile), signManifest(bytes, maker.privateKey))
  await writeFile(join(into, `${manifestFile}.new`), bytes)
  await rename(join(into, `${manifestFile}.new`), join(into, manifestFile))
  let total = bytes.length
  for (const digest of used) total += (await stat(join(into, chunkPath(digest)))).size
  for (const { size } of program) total += size
  return { manifest, bytes: total }
}
