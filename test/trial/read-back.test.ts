/** Stopping the server before its rows are read back: what that proves, and what it does not. */
import { mkdir } from 'node:fs/promises'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { readJournal } from '../../src/journal.js'
import type { DatabaseSpec } from '../../src/lab/lab.js'
import { loadLab } from '../../src/registry.js'
import type { Context } from '../../src/context.js'
import { pathsOf } from '../../src/state.js'
import { putOnDisk } from '../../src/trial/read-back.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = await loadLab('iscsi-ha')
const hacmp = await loadLab('hacmp')
const database = lab.database!
const by = 'lab run iscsi-ha drain'

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(pathsOf(lab).root, { recursive: true })
})

const pod = (name: string) => ({
  metadata: { name },
  spec: { nodeName: 'worker2' },
  status: { conditions: [{ type: 'Ready', status: 'True' }] },
})

interface World {
  readonly stays?: boolean
  readonly mounted?: string
  readonly check?: { readonly exitCode: number; readonly stdout: string }
  /** How many times the API server rejects a request. */
  readonly deaf?: number
  /** The machine of a pair that has the address of the target. */
  readonly serving?: string
}

const clean = 'Filesystem state:         clean\n/dev/ubdc: 227/262144 files'

const labThat = (
  { stays = false, mounted, check = { exitCode: 0, stdout: clean }, deaf = 0, serving = '' }: World,
  of = lab,
) => {
  let replicas = 1
  let wishes = 0
  const scaled: number[] = []
  /** What the journal would undo at each request. */
  const noted: unknown[] = []
  const checked: string[] = []
  const context = {
    lab: of,
    signal: new AbortController().signal,
    provider: { slowdown: 0.01 },
    kubectl: {
      run: async (words: readonly string[]) => {
        noted.push((await readJournal(lab)).map(({ undo }) => undo))
        if (wishes++ < deaf) throw new Error('the API server is away')
        replicas = Number(words.at(-1)?.split('=')[1])
        scaled.push(replicas)
        return Promise.resolve('')
      },
      get: async () =>
        Promise.resolve({
          items: replicas === 0 ? (stays ? [pod('mysql-server-a')] : []) : [pod('mysql-server-b')],
        }),
    },
    machine: (name: string) => ({
      try: async ({ text }: { text: string }) => {
        if (text.includes('findmnt'))
          return Promise.resolve({ exitCode: 0, stdout: name === mounted ? '/mnt' : '', stderr: '' })
        if (text.startsWith('ip '))
          return Promise.resolve({ exitCode: 0, stdout: name === serving ? 'vec0 UP' : '', stderr: '' })
        checked.push(`${name}: ${text}`)
        return Promise.resolve({ stderr: '', ...check })
      },
    }),
  } as unknown as Context
  return { context, scaled, noted, checked }
}

describe('reading back', () => {
  it('reading back proves data on disk when the server ended, no node had its disk, and another server started', async () => {
    const { context, scaled, checked } = labThat({})
    const proof = await putOnDisk(context, database, by)
    expect(proof).toMatchObject({
      ok: true,
      fileSystem: { ok: true, saw: 'Filesystem state: clean; /dev/ubdc: 227/262144 files' },
    })
    expect(proof.saw).toContain('another server is ready: mysql-server-b on worker2')
    expect(scaled).toEqual([0, 1])
    expect(checked).toHaveLength(1)
    expect(checked[0]).toMatch(
      /^target: .*iqn\.2016-04\.world\.srv:target00\/tpgt_1\/lun\/lun_0\/.*e2fsck -f -n/,
    )
  })

  it.each(['target1', 'target2'])(
    'reading back checks the file system at the machine of a pair that serves the disk, which is %s',
    async (serving) => {
      await mkdir(pathsOf(hacmp).root, { recursive: true })
      const { context, checked } = labThat({ serving }, hacmp)
      expect(await putOnDisk(context, hacmp.database!, by)).toMatchObject({ ok: true })
      expect(checked.map((each) => each.split(':')[0])).toEqual([serving])
    },
  )

  it('reading back does not prove data on disk when the server did not end, and a server runs afterwards', async () => {
    const { context, scaled, checked } = labThat({ stays: true })
    const proof = await putOnDisk(context, database, by)
    expect(proof.ok).toBe(false)
    expect(proof.fileSystem).toBeUndefined()
    expect(proof.saw).toContain('the server has ended: no: mysql-server-a')
    expect(checked).toEqual([])
    expect(scaled).toEqual([0, 1])
  })

  it('reading back does not prove data on disk when a node kept the disk, whose file system is then not checked', async () => {
    const { context, scaled, checked } = labThat({ mounted: 'worker1' })
    const proof = await putOnDisk(context, database, by)
    expect(proof.ok).toBe(false)
    expect(proof.saw).toContain('worker1: mounted at /mnt')
    expect(checked).toEqual([])
    expect(scaled).toEqual([0, 1])
  })

  it.each([
    ['its check finds something', { exitCode: 4, stdout: `${clean}\nFree blocks count wrong` }],
    [
      'it calls itself clean with errors',
      { exitCode: 0, stdout: 'Filesystem state:         clean with errors' },
    ],
    ['it was never unmounted', { exitCode: 0, stdout: 'Filesystem state:         not clean' }],
    ['it could not be checked', { exitCode: 1, stdout: '' }],
  ])('reading back reports an unclean file system when %s', async (_, check) => {
    const { context } = labThat({ check })
    expect((await putOnDisk(context, database, by)).fileSystem?.ok).toBe(false)
  })

  it('reading back restores the server although the API server was away when the server should stop', async () => {
    const { context, scaled } = labThat({ deaf: 2 })
    const proof = await putOnDisk(context, database, by)
    expect(proof.ok).toBe(false)
    expect(proof.saw).toContain('the API server is away')
    expect(scaled).toEqual([1])
  })

  it('reading back records its undo before the server ends, and removes it once another server is requested', async () => {
    const { context, noted } = labThat({})
    await putOnDisk(context, database, by)
    const undo = { do: 'scale', machine: 'master', workload: 'deployment/mysql-server', replicas: 1 }
    expect(noted).toEqual([[undo], [undo]])
    expect(await readJournal(lab)).toEqual([])
  })

  it('reading back keeps its undo when the API server never accepts the request for a new server', async () => {
    const { context } = labThat({ deaf: Infinity })
    expect((await putOnDisk(context, database, by)).ok).toBe(false)
    expect(await readJournal(lab)).toMatchObject([{ by, fault: 'read-back', undo: { replicas: 1 } }])
  })

  it('reading back reads from another server of the same volume when the volume is a claim without its own file system', async () => {
    const { context, checked, scaled } = labThat({})
    const claimed: DatabaseSpec = { ...database, volume: { kind: 'claim', class: 'nfs' } }
    const proof = await putOnDisk(context, claimed, by)
    expect(proof).toMatchObject({ ok: true, fileSystem: undefined })
    expect(scaled).toEqual([0, 1])
    expect(checked).toEqual([])
  })
})
