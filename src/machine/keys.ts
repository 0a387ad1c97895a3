import { mkdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import ssh2 from 'ssh2'
import { pathsOf, writePrivate } from '../state.js'

export interface KeyPair {
  /** OpenSSH format. */
  readonly privateKey: string
  /** `ssh-ed25519 AAAA… comment` */
  readonly publicKey: string
}

/** Machines are made side by side, and all want the lab's key: only one may make it. */
const making = new Map<string, Promise<KeyPair>>()

const pairAt = (path: string, comment: string): Promise<KeyPair> => {
  const known = making.get(path)
  if (known) return known
  const pair = readOrMake(path, comment).finally(() => making.delete(path))
  making.set(path, pair)
  return pair
}

const readOrMake = async (path: string, comment: string): Promise<KeyPair> => {
  const kept = await Promise.all([readFile(path, 'utf8'), readFile(`${path}.pub`, 'utf8')]).catch(
    () => undefined,
  )
  if (kept) return { privateKey: kept[0], publicKey: kept[1].trim() }
  const made = ssh2.utils.generateKeyPairSync('ed25519', { comment })
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  // The public half last: a pair is complete or is made anew.
  await writePrivate(path, made.private)
  await writePrivate(`${path}.pub`, `${made.public}\n`)
  return { privateKey: made.private, publicKey: made.public }
}

/** The key with which the operator logs in: one per lab. */
export const labKeys = (lab: string): Promise<KeyPair> => pairAt(pathsOf(lab).privateKey, `lab ${lab}`)

/** The machine's own host key, made here, so that it is known before the first connection. */
export const machineKeys = (lab: string, machine: string): Promise<KeyPair> =>
  pairAt(join(pathsOf(lab).machine(machine), 'host_key'), machine)
