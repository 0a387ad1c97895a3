/**
 * The manifest of a bundle: its maker, and every part with its files, each in chunks. The signature covers the
 * manifest's bytes. Since the manifest identifies all content by SHA-256, the signature covers the whole bundle.
 *
 * A bundle is a folder of plain files, for a USB stick or any web server:
 *   manifest.json, manifest.sig (64 bytes, Ed25519), maker.pub (PEM), chunks/AA/SHA256, lab/…
 */
import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { z } from 'zod'
import { exitCodes, LabError } from '../error.js'

export const manifestFile = 'manifest.json'
export const signatureFile = 'manifest.sig'
export const makerFile = 'maker.pub'

/** Bytes of a file's content in one chunk, which is fetched again if it is damaged. */
export const chunkSize = 8 * 1024 ** 2

/** A compressed chunk of noise is slightly larger than the chunk. */
const longestStored = chunkSize + 64 * 1024

const whole = z.number().int().nonnegative()
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)

/** A relative path that stays inside its folder. */
const path = z
  .string()
  .max(400)
  .regex(/^(?!.*(?:^|\/)\.\.?(?:\/|$))[A-Za-z0-9._@+-]+(?:\/[A-Za-z0-9._@+-]+)*$/)

const chunk = z.strictObject({
  /** The offset of its first byte in the file. */
  at: whole,
  bytes: whole.min(1).max(chunkSize),
  /** Size of the file in `chunks/`, compressed by Brotli. */
  sha256,
  stored: whole.min(1).max(longestStored),
})

const file = z.strictObject({
  path,
  size: whole,
  mode: z.number().int().min(0).max(0o777),
  /** Seconds since the epoch. It must be kept, because User-Mode Linux identifies a base disk by this time. */
  modified: whole,
  /** SHA-256 of all chunks' content in order, which is the file without its holes. */
  sha256,
  chunks: z.array(chunk),
})

const part = z.strictObject({
  /** `base-disk-10271e22895f`: its name, and the hash of its inputs. */
  key: z.string().regex(/^[a-z0-9][a-z0-9.-]*-[0-9a-f]{12}$/),
  title: z.string().max(200),
  files: z.array(file),
})

const manifest = z.strictObject({
  schema: z.literal('lab.bundle/v1'),
  /** Version of the `lab` that made it. */
  version: z.string().max(60),
  made: z.iso.datetime(),
  labs: z.array(z.string().max(64)),
  parts: z.array(part),
  /** `lab` itself and its npm packages, as they are in the bundle. */
  program: z.array(z.strictObject({ path, size: whole, sha256 })),
})

export type Manifest = z.infer<typeof manifest>
export type BundlePart = z.infer<typeof part>
export type BundleFile = z.infer<typeof file>
export type Chunk = z.infer<typeof chunk>

export const sha256Of = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')

/** The path of a chunk in a bundle. */
export const chunkPath = (digest: string): string => `chunks/${digest.slice(0, 2)}/${digest}`

/** Bytes that must be fetched for these parts; a chunk that two of them share is fetched once. */
export const storedBytes = (parts: readonly BundlePart[]): number => {
  const sizes = new Map<string, number>()
  for (const { files } of parts)
    for (const { chunks } of files) for (const { sha256, stored } of chunks) sizes.set(sha256, stored)
  return [...sizes.values()].reduce((sum, stored) => sum + stored, 0)
}

/** The fingerprint that people compare: `SHA256:` and the hash of the public key, in the form that ssh uses. */
export const fingerprintOf = (key: KeyObject): string =>
  `SHA256:${createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('base64')
    .replace(/=+$/, '')}`

export const signManifest = (bytes: Uint8Array, privateKey: KeyObject): Buffer =>
  sign(null, bytes, privateKey)

const damaged = (where: string, why: string, cause?: unknown): LabError =>
  new LabError('bad-bundle', `${where}: ${why}`, {
    hint: 'lab bundle make LAB --into FOLDER makes it again',
    exitCode: exitCodes.failed,
    cause,
  })

/**
 * Reads a manifest, and checks the signature of its maker. The caller decides whether that maker is trusted.
 * @param where for messages: the folder or URL
 * @throws LabError `bad-bundle`
 */
export const readManifest = (
  where: string,
  { bytes, signature, maker }: { readonly bytes: Buffer; readonly signature: Buffer; readonly maker: string },
): { readonly manifest: Manifest; readonly fingerprint: string } => {
  let key: KeyObject
  try {
    key = createPublicKey(maker)
  } catch (error) {
    throw damaged(where, `${makerFile} is not a public key`, error)
  }
  if (key.asymmetricKeyType !== 'ed25519') throw damaged(where, `${makerFile} is not an Ed25519 key`)
  if (!verify(null, bytes, key, signature))
    throw damaged(
      where,
      `${manifestFile} is not what its maker signed: it is damaged, or somebody else changed it`,
    )
  let read: unknown
  try {
    read = JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw damaged(where, `${manifestFile} is not JSON`, error)
  }
  const parsed = manifest.safeParse(read)
  if (!parsed.success) {
    const { schema } = (read ?? {}) as { schema?: unknown }
    throw damaged(
      where,
      typeof schema === 'string' && schema !== 'lab.bundle/v1'
        ? `it is a ${schema}, but this lab reads lab.bundle/v1`
        : `${manifestFile}: ${parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)[0] ?? ''}`,
    )
  }
  for (const { key, files } of parsed.data.parts)
    for (const { path, size, chunks } of files) {
      let end = 0
      for (const { at, bytes } of chunks) {
        if (at < end || at + bytes > size) throw damaged(where, `${key}/${path}: its chunks exceed its size`)
        end = at + bytes
      }
    }
  return { manifest: parsed.data, fingerprint: fingerprintOf(key) }
}
