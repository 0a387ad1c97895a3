/** Snapshots of a lab, with files as disks. test/e2e/learn.test.ts restores one on real machines. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, expect, test, vi } from 'vitest'
import type { Context } from '../../src/context.js'
import { noteUndo, readJournal } from '../../src/journal.js'
import type { MachineState } from '../../src/provider/provider.js'
import { snapshots as ofFiles } from '../../src/provider/uml/snapshots.js'
import { loadLab } from '../../src/registry.js'
import { putBack } from '../../src/snapshot/restore.js'
import { fits, refuseHalfRestored, removeSnapshot, snapshotsOf } from '../../src/snapshot/snapshot.js'
import { takeSnapshot } from '../../src/snapshot/take.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = await loadLab('iscsi')
const names = lab.machines.map(({ name }) => name)
const disk = (machine: string): string => join(pathsOf(lab).machine(machine), 'root.cow')
const write = (text: string): Promise<unknown> =>
  Promise.all(names.map((name) => writeFile(disk(name), text)))

let done: string[] = []
beforeEach(async () => {
  done = []
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  for (const name of names) await mkdir(pathsOf(lab).machine(name), { recursive: true })
  await writeFile(pathsOf(lab).source, 'name: iscsi\n')
  await write('first')
})

const contextWith = (
  states: readonly Partial<MachineState>[],
  snapshots: Partial<typeof ofFiles> = {},
  pause: object = {},
): Context =>
  ({
    lab,
    signal: new AbortController().signal,
    provider: {
      name: 'uml',
      states: async () => names.map((name, index) => ({ name, detail: '', ...states[index] })),
      snapshots: { ...ofFiles, ...snapshots },
      pause: {
        begin: async (_: unknown, name: string) => void done.push(`pause ${name}`),
        end: async (_: unknown, name: string) => void done.push(`resume ${name}`),
        ...pause,
      },
    },
    machine: (name: string) => ({ run: async ({ text }: { text: string }) => done.push(`${name}: ${text}`) }),
  }) as unknown as Context

const off = [{ status: 'stopped' }, { status: 'stopped' }] as const
const on = [{ status: 'running' }, { status: 'running' }] as const

test('a restore brings back the disks and the lab file of a stopped lab, and leaves the snapshot unchanged', async () => {
  const context = contextWith(off)
  await takeSnapshot(context, 'one')
  await write('second')
  await writeFile(pathsOf(lab).source, 'name: other\n')
  await noteUndo(lab, 'x', 'power-cut', [{ do: 'switch-on', machine: 'target' }])
  for (let round = 0; round < 2; round++) {
    await putBack(lab, context.provider, 'one')
    expect(await readFile(disk('target'), 'utf8')).toBe('first')
    expect(await readFile(pathsOf(lab).source, 'utf8')).toBe('name: iscsi\n')
    await write('third')
  }
  expect(await readJournal(lab)).toEqual([])
  expect(done).toEqual([])
})

test('a restore is refused before it changes anything when the disks of a machine are gone', async () => {
  const context = contextWith(off)
  await takeSnapshot(context, 'one')
  await write('second')
  const gone = join(pathsOf(lab).snapshotDisks('one'), 'target')
  await rm(gone, { recursive: true })
  await expect(putBack(lab, context.provider, 'one')).rejects.toMatchObject({
    code: 'bad-snapshot',
    message: `${gone}: the disks of target are gone from the snapshot one`,
    hint: `lab snapshots ${lab.name} --remove one`,
  })
  expect(await readFile(disk('target'), 'utf8')).toBe('second')
  await expect(refuseHalfRestored(lab)).resolves.toBeUndefined()
})

test.each([
  ['gone', (path: string) => rm(path), 'is gone'],
  ['shorter than when it was taken', (path: string) => writeFile(path, 'on'), 'has 2 instead of 3 bytes'],
])(
  'a restore is refused before it changes anything when one disk of a machine is %s',
  async (_, damage, why) => {
    const context = contextWith(off)
    const lun = join(pathsOf(lab).machine('target'), 'lun-0.raw')
    await writeFile(lun, 'one')
    await takeSnapshot(context, 'one')
    await writeFile(lun, 'two')
    const kept = join(pathsOf(lab).snapshotDisks('one'), 'target', 'lun-0.raw')
    await damage(kept)
    await expect(putBack(lab, context.provider, 'one')).rejects.toMatchObject({
      code: 'bad-snapshot',
      message: `${kept}: ${why}, so the snapshot one cannot be restored`,
      hint: 'lab snapshots iscsi --remove one',
    })
    expect(await readFile(lun, 'utf8')).toBe('two')
  },
)

test('a snapshot syncs and pauses the machines of a running lab, and records how they resume', async () => {
  const noted: string[] = []
  const context = contextWith(on, {
    save: async (of, into) => {
      noted.push(...(await readJournal(of)).map(({ undo }) => `${undo.do} ${undo.machine}`))
      await ofFiles.save(of, into)
    },
  })
  expect(await takeSnapshot(context, 'one')).toMatchObject({ while: 'paused', machines: names })
  expect(done).toEqual([
    'target: sync',
    'initiator: sync',
    'pause target',
    'pause initiator',
    'resume target',
    'resume initiator',
  ])
  expect(noted).toEqual(['resume target', 'resume initiator'])
  expect(await readJournal(lab)).toEqual([])
})

test('a snapshot whose copy fails leaves nothing behind, and resumes the machines', async () => {
  const context = contextWith(on, {
    save: async (_, into) => {
      await writeFile(join(into, 'half'), '')
      throw new Error('disk full')
    },
  })
  await expect(takeSnapshot(context, 'one')).rejects.toThrow('disk full')
  expect(await readdir(pathsOf(lab).snapshots)).toEqual([])
  expect(done.slice(-2)).toEqual(['resume target', 'resume initiator'])
})

test('the journal keeps the record of a machine that could not resume after a snapshot', async () => {
  const context = contextWith(on, {}, { end: async () => Promise.reject(new Error('no answer')) })
  await takeSnapshot(context, 'one')
  expect((await readJournal(lab)).map(({ undo }) => undo.do)).toEqual(['resume', 'resume'])
})

test('a snapshot is refused while a fault is active', async () => {
  await noteUndo(lab, 'lab run iscsi x', 'drain', [{ do: 'uncordon', machine: 'target' }])
  await expect(takeSnapshot(contextWith(off), 'one')).rejects.toMatchObject({
    code: 'fault-open',
    hint: 'lab heal iscsi',
  })
})

test.each([
  ['a lab that is partly off', contextWith([{ status: 'running' }, { status: 'stopped' }]), 'partly-up'],
  [
    'a lab that is partly paused',
    contextWith([{ status: 'running' }, { status: 'running', paused: true }]),
    'partly-up',
  ],
  ['a lab that was never made', contextWith([{ status: 'absent' }, { status: 'absent' }]), 'not-made'],
  [
    'a provider that cannot copy disks',
    { ...contextWith(off), provider: { name: 'libvirt' } } as Context,
    'not-offered',
  ],
  ['a disk with too little room', contextWith(off, { size: async () => 2 ** 60 }), 'no-space'],
])('a snapshot is refused: %s', async (_, context, code) => {
  await expect(takeSnapshot(context, 'one')).rejects.toMatchObject({ code })
  expect(existsSync(pathsOf(lab).snapshots)).toBe(false)
})

test('a second snapshot of the same name is refused unless it should replace the first', async () => {
  await takeSnapshot(contextWith(off), 'one')
  await write('second')
  await expect(takeSnapshot(contextWith(off), 'one')).rejects.toMatchObject({ code: 'snapshot-exists' })
  await takeSnapshot(contextWith(off), 'one', { replace: true })
  await write('third')
  await putBack(lab, contextWith(off).provider, 'one')
  expect(await readFile(disk('target'), 'utf8')).toBe('second')
})

test.each(['', '{', 'null', '{}', '[]', '{"name":"one","taken":5}'])(
  'a snapshot whose description is damaged is named, and can be removed or replaced: %j',
  async (text) => {
    const context = contextWith(off)
    const description = join(pathsOf(lab).snapshots, 'one', 'snapshot.json')
    const damage = async (): Promise<void> => {
      await takeSnapshot(context, 'one', { replace: true })
      await writeFile(description, text)
    }
    await damage()
    const named = { code: 'bad-state', hint: 'lab snapshots iscsi --remove one' }
    await expect(snapshotsOf(lab)).rejects.toMatchObject(named)
    await expect(putBack(lab, context.provider, 'one')).rejects.toMatchObject(named)
    await expect(takeSnapshot(context, 'one')).rejects.toMatchObject({ code: 'snapshot-exists' })
    // lab up then takes it again.
    expect(await fits(lab, 'one')).toBe(false)
    await removeSnapshot(lab, 'one')
    expect(await snapshotsOf(lab)).toEqual([])
    await damage()
    await takeSnapshot(context, 'one', { replace: true })
    expect(await snapshotsOf(lab)).toMatchObject([{ name: 'one' }])
  },
)

test('an incomplete snapshot does not count', async () => {
  await mkdir(join(pathsOf(lab).snapshots, '.one.new', 'disks'), { recursive: true })
  await mkdir(join(pathsOf(lab).snapshots, 'two', 'disks'), { recursive: true })
  expect(await snapshotsOf(lab)).toEqual([])
  await expect(removeSnapshot(lab, 'two')).rejects.toMatchObject({ code: 'no-snapshot' })
})

test('lab snapshots --remove removes one snapshot, and no path that its name might lead to', async () => {
  await takeSnapshot(contextWith(off), 'one')
  await expect(removeSnapshot(lab, '../machines')).rejects.toMatchObject({ code: 'bad-snapshot-name' })
  await removeSnapshot(lab, 'one')
  expect(await readdir(pathsOf(lab).snapshots)).toEqual([])
})

test('a lab whose restore was killed must be restored again, even if the name of the snapshot is lost', async () => {
  await writeFile(pathsOf(lab).restoring, '')
  await expect(refuseHalfRestored(lab)).rejects.toMatchObject({
    message: expect.stringContaining('the restore of a snapshot was interrupted'),
    hint: 'lab snapshots iscsi, then: lab restore iscsi NAME',
  })
})

test('a lab whose restore was killed must be restored again, and the message says so', async () => {
  await takeSnapshot(contextWith(off), 'one')
  const { provider } = contextWith(off, { load: async () => Promise.reject(new Error('killed')) })
  await expect(putBack(lab, provider, 'one')).rejects.toThrow('killed')
  await expect(refuseHalfRestored(lab)).rejects.toMatchObject({ hint: 'lab restore iscsi one' })
  await putBack(lab, contextWith(off).provider, 'one')
  await expect(refuseHalfRestored(lab)).resolves.toBeUndefined()
})

test('a snapshot tells a lab file that has changed from one that has not', async () => {
  await takeSnapshot(contextWith(off), 'clean')
  expect(await fits(lab, 'clean')).toBe(true)
  await writeFile(pathsOf(lab).source, 'name: iscsi\nfailover: fast\n')
  expect(await fits(lab, 'clean')).toBe(false)
})
