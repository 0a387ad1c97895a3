/**
 * Which makers of bundles are trusted. This host runs programs from a bundle, so its user must trust the maker. The
 * maker has a key, and gives the key's fingerprint to users separately from the bundle.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import { folderFrom, readIfThere, writePrivate } from '../state.js'
import { type Place, refuseForeign } from '../trust.js'
import { fingerprintOf } from './manifest.js'

const place: Place = {
  variable: 'LAB_CONFIG',
  danger: 'it decides whose programs lab runs',
}

/** Where a user's key and the trusted makers are kept: LAB_CONFIG, else XDG_CONFIG_HOME/lab, else ~/.config/lab. */
const configRoot = (): string => {
  const root = folderFrom('LAB_CONFIG', 'XDG_CONFIG_HOME', '.config')
  refuseForeign(root, place, 'ours-or-root', 'folder')
  return root
}

const keyFile = (): string => join(configRoot(), 'bundle-key.pem')
const makersFile = (): string => join(configRoot(), 'bundle-makers')

export interface Maker {
  readonly privateKey: KeyObject
  /** PEM. */
  readonly publicKey: string
  readonly fingerprint: string
}

/** This user's own key; undefined if none was made yet. */
const keptKey = async (): Promise<KeyObject | undefined> => {
  const text = await readIfThere(keyFile())
  if (text === undefined) return undefined
  try {
    return createPrivateKey(text)
  } catch (error) {
    throw new LabError('bad-key', `${keyFile()} is not a private key`, {
      hint: `rm ${keyFile()}: the next bundle then has a new maker, which its users must confirm again`,
      exitCode: exitCodes.host,
      cause: error,
    })
  }
}

const publicOf = (privateKey: KeyObject): KeyObject => createPublicKey(privateKey)

/** The key that signs this user's bundles; it is made when it is first needed. */
export const ownMaker = async (): Promise<Maker> => {
  let privateKey = await keptKey()
  if (!privateKey) {
    privateKey = generateKeyPairSync('ed25519').privateKey
    await writePrivate(keyFile(), privateKey.export({ type: 'pkcs8', format: 'pem' }))
  }
  const key = publicOf(privateKey)
  return {
    privateKey,
    publicKey: key.export({ type: 'spki', format: 'pem' }).toString(),
    fingerprint: fingerprintOf(key),
  }
}

/** Fingerprints that this user trusts, one per line; the rest of a line is a note. */
const trustedMakers = async (): Promise<readonly string[]> => {
  const listed = ((await readIfThere(makersFile())) ?? '').split('\n').map((line) => line.split(' ')[0] ?? '')
  const own = await keptKey()
  return [...listed.filter(Boolean), ...(own ? [fingerprintOf(publicOf(own))] : [])]
}

const remember = async (fingerprint: string, where: string): Promise<void> => {
  const before = (await readIfThere(makersFile())) ?? ''
  // A line that was typed or cut short may lack its end.
  const whole = before === '' || before.endsWith('\n') ? before : `${before}\n`
  await writePrivate(makersFile(), `${whole}${fingerprint} ${where}\n`)
}

/**
 * Returns if the maker of a bundle is trusted: because the user typed the fingerprint, trusted it earlier, or answers
 * yes now.
 * @param given the fingerprint that the user typed
 * @param ask asks the user; undefined if there is no terminal
 * @throws LabError `unknown-maker`, `other-maker`
 */
export const trustMaker = async (
  fingerprint: string,
  where: string,
  {
    given,
    ask,
  }: {
    readonly given?: string | undefined
    readonly ask?: ((question: string) => Promise<boolean>) | undefined
  },
): Promise<void> => {
  if (given !== undefined && given !== fingerprint)
    throw new LabError('other-maker', `${where} was made by ${fingerprint}, not by ${given}`, {
      hint: 'ask the maker for the line that lab bundle make printed',
      exitCode: exitCodes.usage,
    })
  if ((await trustedMakers()).includes(fingerprint)) return
  if (
    given === undefined &&
    !(await ask?.(
      `${where} was made by ${fingerprint}. Is this what its maker told you? lab will run programs from it.`,
    ))
  )
    throw new LabError('unknown-maker', `${where} was made by ${fingerprint}, whom you do not trust yet`, {
      hint: `if its maker says that this is the right fingerprint: --maker ${fingerprint}`,
      exitCode: exitCodes.usage,
    })
  await remember(fingerprint, where)
}
