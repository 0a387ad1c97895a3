import { type LabId, wordOf } from '../identity.js'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import ssh2 from 'ssh2'
import { pathsOf, writePrivate } from '../state.js'

export interface KeyPair {
  /** OpenSSH format. */
  readonly privateKey: string
  /** `ssh-ed25519 AAAA… comment` */
  readonly publicKey: string
}

/** Machines are made concurrently, and all need the lab's key: it must be made only once. */
const making = new Map<string, Promise<KeyPair>>()

const pairAt = (path: string, comment: string): Promise<KeyPair> => {
  const known = making.get(path)
  if (known) return known
  const pair = readOrMake(path, comment).finally(() => making.delete(path))
  making.set(path, pair)
  return pair
}

const isSound = ({ privateKey, publicKey }: KeyPair): boolean =>
  [privateKey, publicKey].every((key) => !(ssh2.utils.parseKey(key) instanceof Error))

/**
 * One in 250 Ed25519 pairs that ssh2 makes is an octet short (its DER reader drops a leading zero), and neither ssh2
 * nor OpenSSH can read it.
 * @param generate makes a pair; replaced in tests
 */
export const makeKeyPair = (
  comment: string,
  generate: () => { private: string; public: string } = () =>
    ssh2.utils.generateKeyPairSync('ed25519', { comment }),
): KeyPair => {
  for (;;) {
    const made = generate()
    const pair = { privateKey: made.private, publicKey: made.public }
    if (isSound(pair)) return pair
  }
}

const readOrMake = async (path: string, comment: string): Promise<KeyPair> => {
  const kept = await Promise.all([readFile(path, 'utf8'), readFile(`${path}.pub`, 'utf8')]).catch(
    () => undefined,
  )
  const pair = kept && { privateKey: kept[0], publicKey: kept[1].trim() }
  // A key that a power cut emptied opens no machine, and is replaced.
  if (pair && isSound(pair)) return pair
  const made = makeKeyPair(comment)
  // The public half last: a pair is complete or is made again.
  await writePrivate(path, made.privateKey)
  await writePrivate(`${path}.pub`, `${made.publicKey}\n`)
  return made
}

/** The key with which the operator logs in; one per lab. */
export const labKeys = (lab: LabId): Promise<KeyPair> => pairAt(pathsOf(lab).privateKey, `lab ${wordOf(lab)}`)

const hostKey = (lab: LabId, machine: string): string => join(pathsOf(lab).machine(machine), 'host_key')

/** The host key of a machine, generated here so that it is known before the first connection. */
export const machineKeys = (lab: LabId, machine: string): Promise<KeyPair> =>
  pairAt(hostKey(lab, machine), machine)

/** Whether both keys exist: without them nobody has ever logged in, and read-only commands must not make them. */
export const hasKeys = (lab: LabId, machine: string): boolean =>
  existsSync(pathsOf(lab).privateKey) && existsSync(hostKey(lab, machine))
