/** A host's record of what lab changed, after a power cut or a careless hand: it is whole, or an error says what to type. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { LabError } from '../../../src/error.js'
import type { Transport } from '../../../src/machine/machine.js'
import { handBack, holderToReturn } from '../../../src/provider/hosts/give-back.js'
import { type Before, type Entry, Recorder, readRecord } from '../../../src/provider/hosts/undo-record.js'
import { undoRecord, undoScript } from '../../../src/provider/hosts/undo.js'
import { temporaryFolder } from '../../helpers/folder.js'

const befores: readonly Before[] = [
  { kind: 'files', saved: ['/etc/hosts'], absent: ['/etc/lab'] },
  { kind: 'packages', names: ['open-iscsi'], users: ['root'], groups: ['root'] },
  { kind: 'units', units: [{ name: 'iscsid.service', enabled: 'enabled', active: false }] },
  { kind: 'sysctls', values: [['net.ipv4.ip_forward', '0']] },
  { kind: 'modules', names: ['br_netfilter'], loaded: [] },
  { kind: 'hostname', name: 'pi1' },
  { kind: 'boot-line', file: '/boot/firmware/cmdline.txt', base64: 'cm9vdD0vZGV2L3NkYTEK' },
  { kind: 'swap', devices: ['/dev/zram0'] },
  { kind: 'target' },
  { kind: 'sessions', targets: ['iqn.2016-04.world.srv:target00'] },
  { kind: 'containers', interfaces: ['lo'], tables: [], mounts: ['/'] },
]
const entries = befores.map((before, index): Entry => ({
  number: String(index + 1).padStart(3, '0'),
  key: before.kind,
  before,
}))

let folder: string
let host: Transport
beforeEach(async () => {
  const root = await temporaryFolder()
  folder = join(root, 'undo')
  host = {
    address: 'pi1',
    exec: (command) => {
      const text = command.replaceAll('/var/lib/lab', root)
      const stdout = execFileSync('sh', ['-c', text], { encoding: 'utf8' })
      return Promise.resolve({ exitCode: 0, stdout: stdout.replaceAll(root, '/var/lib/lab'), stderr: '' })
    },
    close: () => Promise.resolve(),
  }
  mkdirSync(folder)
  for (const entry of entries)
    writeFileSync(join(folder, `${entry.number}.json`), `${JSON.stringify(entry)}\n`)
})

/** A host that prints one file of the record, without a shell: thousands of them are read in a moment. */
const hostWith = (name: string, content: Buffer): Transport => ({
  address: 'pi1',
  exec: () => Promise.resolve({ exitCode: 0, stdout: `${name} ${content.toString('base64')}\n`, stderr: '' }),
  close: () => Promise.resolve(),
})

/** The entry in a file, or undefined after an error that names the file and what to type. */
const readOne = async (name: string, content: Buffer): Promise<Entry | undefined> => {
  try {
    const [entry] = await readRecord(hostWith(name, content))
    return entry
  } catch (error) {
    expect(error).toBeInstanceOf(LabError)
    expect(error).toMatchObject({
      code: 'bad-record',
      message: expect.stringContaining(`pi1: /var/lib/lab/undo/${name} does not say what lab changed: `),
      hint: expect.stringContaining(`rm -r /var/lib/lab/undo/${name}`),
    })
    return undefined
  }
}

describe('a record of what was changed on a host', () => {
  test('the record of a host reads back with every kind of change, in order', async () => {
    expect(await readRecord(host)).toEqual(entries)
  })

  test('the record of a host is empty without its folder', async () => {
    rmSync(folder, { recursive: true })
    expect(await readRecord(host)).toEqual([])
  })

  test.each([
    { what: 'empty', damage: (path: string) => writeFileSync(path, ''), why: 'it is empty' },
    { what: 'zeros', damage: (path: string) => writeFileSync(path, '\0'.repeat(300)), why: 'it is not JSON' },
    {
      what: 'cut short',
      damage: (path: string) => writeFileSync(path, '{"number":"004","k'),
      why: 'it is not JSON',
    },
    { what: 'two lines', damage: (path: string) => writeFileSync(path, '{}\n{}\n'), why: 'it is not JSON' },
    { what: 'null', damage: (path: string) => writeFileSync(path, 'null'), why: 'its number is not' },
    { what: 'a list', damage: (path: string) => writeFileSync(path, '[]'), why: 'its number is not' },
    {
      what: 'a copy of another entry',
      damage: (path: string) => writeFileSync(path, JSON.stringify(entries[0])),
      why: 'its number is not that of its name',
    },
    {
      what: 'of a later version',
      damage: (path: string) =>
        writeFileSync(path, JSON.stringify({ ...entries[3], before: { kind: 'moon' } })),
      why: 'it is of a kind that this version of lab does not know',
    },
    {
      what: 'without its values',
      damage: (path: string) =>
        writeFileSync(path, JSON.stringify({ ...entries[3], before: { kind: 'sysctls' } })),
      why: 'its values cannot be read',
    },
    { what: 'a folder', damage: (path: string) => mkdirSync(path), why: 'it cannot be read' },
    {
      what: 'a link to nothing',
      damage: (path: string) => symlinkSync('nowhere', path),
      why: 'it cannot be read',
    },
  ])(
    'a host whose record has a file that is $what is not given back in part, and the error says what to type',
    async ({ damage, why }) => {
      rmSync(join(folder, '004.json'))
      damage(join(folder, '004.json'))
      const before = readdirSync(folder)
      const error = {
        code: 'bad-record',
        message: expect.stringContaining(
          `pi1: /var/lib/lab/undo/004.json does not say what lab changed: ${why}`,
        ),
        hint: expect.stringMatching(/type there: rm -r \/var\/lib\/lab\/undo\/004\.json$/),
      }
      await expect(readRecord(host)).rejects.toMatchObject(error)
      // `lab up`, and `lab down` with and without the host's lock.
      await expect(Recorder.open(host)).rejects.toMatchObject(error)
      await expect(undoRecord(host, () => undefined)).rejects.toMatchObject(error)
      await expect(holderToReturn(host, { key: 'AAAA', lab: 'iscsi' })).rejects.toMatchObject(error)
      expect(readdirSync(folder)).toEqual(before)
      // The hint helps.
      rmSync(join(folder, '004.json'), { recursive: true })
      expect(await readRecord(host)).toEqual(entries.filter(({ number }) => number !== '004'))
    },
  )

  test('a file in place of the folder of the record is an error, and not an empty record', async () => {
    rmSync(folder, { recursive: true })
    writeFileSync(folder, '')
    await expect(readRecord(host)).rejects.toMatchObject({
      code: 'bad-record',
      message: 'pi1: /var/lib/lab/undo does not say what lab changed: it is not a folder',
    })
  })

  test('an entry that is cut short anywhere, or has any value in place of another, is refused or can be undone', async () => {
    const anything = fc.jsonValue({ maxDepth: 2 })
    /** The entry with one of its values, at any depth, replaced or left out. */
    const changed = (value: unknown): fc.Arbitrary<unknown> =>
      typeof value !== 'object' || value === null
        ? anything
        : fc.oneof(
            anything,
            fc.constantFrom(...Object.keys(value), 'more').chain((field) =>
              changed((value as Readonly<Record<string, unknown>>)[field]).map((other) => {
                const copy = structuredClone(value) as Record<string, unknown>
                copy[field] = other
                return copy
              }),
            ),
          )
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...entries).chain((entry) => {
          const text = JSON.stringify(entry)
          return fc.tuple(
            fc.constant(`${entry.number}.json`),
            fc.oneof(
              changed(entry).map((value) => Buffer.from(JSON.stringify(value))),
              fc.nat(text.length).map((length) => Buffer.from(text.slice(0, length))),
              fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes)),
            ),
          )
        }),
        async ([name, content]) => {
          const entry = await readOne(name, content)
          if (entry) expect(undoScript(entry)).toBeTypeOf('string')
        },
      ),
      { numRuns: 2000 },
    )
  })
})

test.each([
  { list: '', note: true, different: [expect.stringContaining('nothing was compared')] },
  { list: 'hostname pi1\n', note: true, different: [] },
  // A lab that was killed before it had listed anything has changed nothing either.
  { list: '', note: false, different: [] },
])(
  'a host is as it was before only if the list of its earlier state is there: $list, its key was installed: $note',
  async ({ list, note, different }) => {
    const answers: readonly (readonly [part: string, answer: string])[] = [
      ['authorized_keys.lab-new', ''],
      ['ssh-before', note ? 'there\n' : ''],
      ['dpkg-query', 'hostname pi1\n'],
      ['/var/lib/lab/manifest', list],
    ]
    const root: Transport = {
      address: 'pi1',
      exec: (command) =>
        Promise.resolve({
          exitCode: 0,
          stdout: answers.find(([part]) => command.includes(part))?.[1] ?? '',
          stderr: '',
        }),
      close: () => Promise.resolve(),
    }
    expect(await handBack(root, { key: 'AAAA', lab: 'iscsi' }, () => undefined)).toEqual(different)
  },
)
