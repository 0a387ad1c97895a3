/** The location of a bundle, a folder or any web server, and how to read its files. */
import { open, stat } from 'node:fs/promises'
import { isAbsolute, join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { exitCodes, Interrupted, LabError, messageOf } from '../error.js'
import { makerFile, type Manifest, manifestFile, readManifest, signatureFile } from './manifest.js'

export interface Source {
  /** For people: as it was typed. */
  readonly name: string
  /** Whether to keep what was read for the next attempt, because it came over a network. */
  readonly remote: boolean
  /**
   * The bytes of a file of the bundle.
   * @param longest the most bytes that are read
   * @throws LabError `bundle-unreachable`, `bundle-file-missing`
   */
  read(path: string, longest: number, signal: AbortSignal): Promise<Buffer>
}

/** Milliseconds without a byte after which a request is repeated. */
const silence = 20_000
/**
 * How often a request is repeated if the server did not answer or stopped in the middle; and the first pause, in ms.
 */
const attempts = 5
const firstPause = 500

/** Limit in bytes for a manifest: that of 3 GiB of parts has 150 KiB. */
const longestManifest = 64 * 1024 ** 2

const unreachable = (name: string, why: string, cause?: unknown): LabError =>
  new LabError('bundle-unreachable', `${name}: ${why}`, {
    hint: /^https?:/.test(name) ? `curl -I ${name.replace(/\/$/, '')}/${manifestFile}` : `ls ${name}`,
    exitCode: exitCodes.host,
    cause,
  })

const missing = (name: string, path: string): LabError =>
  new LabError('bundle-file-missing', `${name}: ${path} does not exist`, {
    // What a bundle is signed with cannot be checked without it.
    hint: [manifestFile, signatureFile, makerFile].includes(path)
      ? 'lab bundle make LAB --into FOLDER makes a bundle'
      : 'lab bundle check FOLDER',
    exitCode: exitCodes.host,
  })

const tooLong = (name: string, path: string, longest: number): LabError =>
  new LabError(
    'bad-bundle',
    `${name}/${path} has more than the ${String(longest)} bytes that it should have`,
    {
      hint: 'lab bundle check FOLDER',
    },
  )

const folderSource = (folder: string): Source => ({
  name: folder,
  remote: false,
  read: async (path, longest) => {
    try {
      const file = await open(join(folder, path), 'r')
      try {
        if ((await file.stat()).size > longest) throw tooLong(folder, path, longest)
        return await file.readFile()
      } finally {
        await file.close()
      }
    } catch (error) {
      if (error instanceof LabError) throw error
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw missing(folder, path)
      throw unreachable(folder, messageOf(error), error)
    }
  },
})

/** Why a fetch failed: Node hides the reason in the cause. */
const reasonOf = (error: unknown): string => {
  const { cause } = error as { cause?: unknown }
  return cause instanceof Error ? messageOf(cause) : messageOf(error)
}

const urlSource = (base: string): Source => {
  const once = async (path: string, longest: number, signal: AbortSignal): Promise<Buffer> => {
    const quiet = new AbortController()
    let timer = setTimeout(() => quiet.abort(new Error('no answer')), silence)
    const heard = (): void => {
      clearTimeout(timer)
      timer = setTimeout(() => quiet.abort(new Error('the transfer stopped in the middle')), silence)
    }
    try {
      const response = await fetch(new URL(path, base), { signal: AbortSignal.any([signal, quiet.signal]) })
      if (response.status === 404) throw missing(base, path)
      if (!response.ok || !response.body) throw new Error(`HTTP ${String(response.status)}`)
      const chunks: Uint8Array[] = []
      let size = 0
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
        heard()
        size += chunk.length
        if (size > longest) throw tooLong(base, path, longest)
        chunks.push(chunk)
      }
      return Buffer.concat(chunks)
    } finally {
      clearTimeout(timer)
    }
  }
  return {
    name: base,
    remote: true,
    read: async (path, longest, signal) => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await once(path, longest, signal)
        } catch (error) {
          if (signal.aborted) throw new Interrupted()
          if (error instanceof LabError) throw error
          if (attempt === attempts) throw unreachable(base, reasonOf(error), error)
        }
        await delay(firstPause * 2 ** (attempt - 1), undefined, { signal }).catch(() => {
          throw new Interrupted()
        })
      }
    },
  }
}

/** @throws LabError for anything but a folder or an http or https URL */
export const sourceOf = async (where: string): Promise<Source> => {
  if (/^https?:\/\//i.test(where)) {
    const url = URL.canParse(where) ? new URL(where) : undefined
    if (url?.search === '' && url.hash === '') return urlSource(url.href.replace(/\/?$/, '/'))
    throw new LabError('bad-source', `${where}: not the URL of a bundle`, {
      hint: 'http://HOST:PORT, as lab bundle serve prints it',
      exitCode: exitCodes.usage,
    })
  }
  const folder = isAbsolute(where) ? where : resolve(where)
  const found = await stat(folder).catch(() => undefined)
  if (found?.isDirectory()) return folderSource(folder)
  throw new LabError('bad-source', `${where}: neither a folder nor a URL`, {
    hint: '--from FOLDER, or --from http://HOST:PORT as lab bundle serve prints it',
    exitCode: exitCodes.usage,
  })
}

/** The manifest of a bundle, with its signature checked. The caller decides whether the maker is trusted. */
export const openBundle = async (
  source: Source,
  signal: AbortSignal,
): Promise<{ readonly manifest: Manifest; readonly fingerprint: string }> => {
  const bytes = await source.read(manifestFile, longestManifest, signal)
  const signature = await source.read(signatureFile, 1024, signal)
  const maker = (await source.read(makerFile, 4096, signal)).toString('utf8')
  return readManifest(source.name, { bytes, signature, maker })
}
