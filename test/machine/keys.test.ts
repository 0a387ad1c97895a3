import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import ssh2 from 'ssh2'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { labKeys, machineKeys, makeKeyPair } from '../../src/machine/keys.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

beforeEach(async () => {
  const before = process.env['LAB_STATE']
  process.env['LAB_STATE'] = await temporaryFolder()
  onTestFinished(() => {
    if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
    else process.env['LAB_STATE'] = before
  })
})

describe('a pair of keys', () => {
  test('a pair of keys is made once and kept', async () => {
    const made = await labKeys({ name: 'demo' })
    expect(await labKeys({ name: 'demo' })).toEqual(made)
    expect(made.publicKey).toMatch(/^ssh-ed25519 \S+ lab demo$/)
  })

  test('a pair of keys can be read, although ssh2 sometimes makes one that cannot', () => {
    const make = () => ssh2.utils.generateKeyPairSync('ed25519', { comment: 'lab demo' })
    let unreadable = make()
    // One in 250: if 10,000 tries find none, ssh2 was repaired, and this test can go.
    for (let tries = 0; !(ssh2.utils.parseKey(unreadable.private) instanceof Error); tries++) {
      expect(tries).toBeLessThan(10_000)
      unreadable = make()
    }
    const good = makeKeyPair('lab demo')
    const offered = [unreadable, unreadable, { private: good.privateKey, public: good.publicKey }]
    expect(makeKeyPair('lab demo', () => offered.shift() ?? unreadable)).toEqual(good)
  })

  test('callers that ask at the same moment get the same pair of keys', async () => {
    const pairs = await Promise.all(Array.from({ length: 10 }, () => labKeys({ name: 'demo' })))
    expect(new Set(pairs.map(({ privateKey }) => privateKey)).size).toBe(1)
    expect(await readFile(pathsOf({ name: 'demo' }).privateKey, 'utf8')).toBe(pairs[0]?.privateKey)
  })

  test('both halves of a pair match, for us and for OpenSSH', async () => {
    const { privateKey, publicKey } = await machineKeys({ name: 'demo' }, 'worker1')
    const parsed = ssh2.utils.parseKey(privateKey)
    if (parsed instanceof Error) throw parsed
    expect(parsed.getPublicSSH().toString('base64')).toBe(publicKey.split(' ')[1])
    const path = join(pathsOf({ name: 'demo' }).machine('worker1'), 'host_key')
    const { stdout } = await execa('ssh-keygen', ['-y', '-P', '', '-f', path])
    expect(stdout.split(' ').slice(0, 2)).toEqual(publicKey.split(' ').slice(0, 2))
  })

  test('a private key is readable only by its owner', async () => {
    await labKeys({ name: 'demo' })
    const { privateKey } = pathsOf({ name: 'demo' })
    expect((await stat(privateKey)).mode & 0o777).toBe(0o600)
    expect((await stat(dirname(privateKey))).mode & 0o777).toBe(0o700)
  })

  test('a pair of keys with a missing half is made again completely', async () => {
    const old = await labKeys({ name: 'demo' })
    await rm(`${pathsOf({ name: 'demo' }).privateKey}.pub`)
    const made = await labKeys({ name: 'demo' })
    expect(made.publicKey).not.toBe(old.publicKey)
    expect(await labKeys({ name: 'demo' })).toEqual(made)
  })

  test('every machine has its own pair of keys', async () => {
    const [one, two, lab] = await Promise.all([
      machineKeys({ name: 'demo' }, 'worker1'),
      machineKeys({ name: 'demo' }, 'worker2'),
      labKeys({ name: 'demo' }),
    ])
    expect(new Set([one.publicKey, two.publicKey, lab.publicKey]).size).toBe(3)
  })

  test('a public key may end with a newline, as editors leave it', async () => {
    const made = await labKeys({ name: 'demo' })
    const path = `${pathsOf({ name: 'demo' }).privateKey}.pub`
    await writeFile(path, `${made.publicKey}\n\n`)
    expect((await labKeys({ name: 'demo' })).publicKey).toBe(made.publicKey)
  })
})
