import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { pack, type Header, type Pack } from 'tar-stream'

/** The configuration of an image, in the terms of the OCI image specification. */
export interface ImageConfig {
  /** As the kubelet requests it: `registry.k8s.io/pause:3.10.2`. */
  readonly reference: string
  /** The OCI name of its architecture: `amd64`. */
  readonly architecture: string
  readonly entrypoint?: readonly string[] | undefined
  readonly command?: readonly string[] | undefined
  readonly environment?: Readonly<Record<string, string>> | undefined
  /** Working directory. */
  readonly directory?: string | undefined
  /** The signal that stops its first process, such as `SIGQUIT`. */
  readonly stopSignal?: string | undefined
}

/** One entry of a layer; its path is absolute, and missing parent folders are added. */
export interface LayerEntry {
  readonly path: string
  /** A file of the host, or the content, or the target of a symbolic link. None of them: a folder. */
  readonly from?: string | undefined
  readonly content?: string | undefined
  readonly link?: string | undefined
  /** Default 0755, since nearly everything in these images is a program. */
  readonly mode?: number | undefined
}

/** The same entries always make the same bytes, so nothing depends on the clock or the host. */
const always = { mtime: new Date(0), uid: 0, gid: 0, uname: 'root', gname: 'root' }

type EntryHeader = Partial<Header> & Pick<Header, 'name'>

const add = (archive: Pack, header: EntryHeader, content = ''): Promise<void> =>
  new Promise((resolve, reject) => {
    archive.entry({ ...always, ...header }, content, (error) => {
      if (error) reject(error)
      else resolve()
    })
  })

const addFile = async (archive: Pack, header: EntryHeader, from: string): Promise<void> => {
  const { size } = await stat(from)
  await pipeline(createReadStream(from), archive.entry({ ...always, ...header, size }))
}

/**
 * Runs `fill` on a new tar archive at `path`.
 * @returns the sha256 of the archive, in hex
 */
const writeTar = async (path: string, fill: (archive: Pack) => Promise<void>): Promise<string> => {
  const archive = pack()
  const hash = createHash('sha256')
  const hashing = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      done(null, chunk)
    },
  })
  const writing = pipeline(archive, hashing, createWriteStream(path))
  const filling = fill(archive).then(
    () => {
      archive.finalize()
    },
    (error: unknown) => {
      archive.destroy(error instanceof Error ? error : new Error(String(error)))
      throw error
    },
  )
  await Promise.all([writing, filling])
  return hash.digest('hex')
}

const parentsOf = (path: string): string[] => {
  const names = path.split('/').filter(Boolean).slice(0, -1)
  return names.map((_, index) => `/${names.slice(0, index + 1).join('/')}`)
}

/**
 * Writes one layer, with entries sorted by path.
 * @returns the sha256 of the tar: the layer's `diff_id`
 */
export const writeLayer = (path: string, entries: readonly LayerEntry[]): Promise<string> => {
  const all = new Map<string, LayerEntry>()
  for (const entry of entries) {
    for (const parent of parentsOf(entry.path)) if (!all.has(parent)) all.set(parent, { path: parent })
    all.set(entry.path, entry)
  }
  return writeTar(path, async (archive) => {
    for (const [name, entry] of [...all].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const header = { name: name.slice(1), mode: entry.mode ?? 0o755 }
      if (entry.from !== undefined) await addFile(archive, header, entry.from)
      else if (entry.content !== undefined) await add(archive, header, entry.content)
      else if (entry.link !== undefined)
        await add(archive, { ...header, type: 'symlink', linkname: entry.link, mode: 0o777 })
      else await add(archive, { ...header, name: `${header.name}/`, type: 'directory' })
    }
  })
}

/** @returns the sha256 of a file, in hex */
export const digestOf = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

/**
 * Writes a docker-archive with one layer, which `ctr images import` and every other tool reads. The layer's file is
 * left unchanged.
 */
export const writeImageArchive = async (
  path: string,
  config: ImageConfig,
  layer: { readonly path: string; readonly digest: string },
): Promise<void> => {
  const environment = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ...config.environment,
  }
  const image = JSON.stringify({
    architecture: config.architecture,
    os: 'linux',
    created: new Date(0).toISOString(),
    config: {
      Env: Object.entries(environment).map(([name, value]) => `${name}=${value}`),
      ...(config.entrypoint && { Entrypoint: config.entrypoint }),
      ...(config.command && { Cmd: config.command }),
      ...(config.directory !== undefined && { WorkingDir: config.directory }),
      ...(config.stopSignal !== undefined && { StopSignal: config.stopSignal }),
    },
    rootfs: { type: 'layers', diff_ids: [`sha256:${layer.digest}`] },
    history: [{ created: new Date(0).toISOString(), created_by: 'lab' }],
  })
  const name = createHash('sha256').update(image).digest('hex')
  try {
    await writeTar(path, async (archive) => {
      await add(archive, { name: `${name}.json`, mode: 0o644 }, image)
      await addFile(archive, { name: `${layer.digest}/layer.tar`, mode: 0o644 }, layer.path)
      const manifest = [
        { Config: `${name}.json`, RepoTags: [config.reference], Layers: [`${layer.digest}/layer.tar`] },
      ]
      await add(archive, { name: 'manifest.json', mode: 0o644 }, JSON.stringify(manifest))
    })
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}
