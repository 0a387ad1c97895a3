/** What `up` and `heal` say at their end, for a lab whose machines are fakes and whose plan has nothing to do. */
import { mkdir } from 'node:fs/promises'
import { beforeEach, expect, test, vi } from 'vitest'
import { noteUndo, readJournal } from '../../src/journal.js'
import { bringUp } from '../../src/lifecycle/bring-up.js'
import { loadLab } from '../../src/registry.js'
import type { Provider } from '../../src/provider/provider.js'
import type { Session } from '../../src/session.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

vi.mock('../../src/up.js', () => ({
  planNow: () => Promise.resolve({ title: 'up', steps: [], leftOut: [] }),
}))

const lab = await loadLab('iscsi')
let made: string[] = []
let notices: string[] = []
beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(pathsOf(lab).root, { recursive: true, mode: 0o700 })
  made = []
  notices = []
})

const up = () => {
  const { signal } = new AbortController()
  const provider = {
    name: 'uml',
    withoutSsh: 'reaches nothing',
    preflight: () => Promise.resolve([]),
    prepare: async () => void made.push('parts'),
    states: () => Promise.resolve(lab.machines.map(({ name }) => ({ name, status: 'running', detail: '' }))),
  } as unknown as Provider
  const session = {
    lab,
    provider,
    signal,
    machine: () => ({ run: () => Promise.resolve('') }),
  } as unknown as Session
  return bringUp(
    { lab, read: { lab, text: '' }, provider, source: {}, keepClean: false },
    {
      signal,
      agree: () => Promise.resolve('nobody'),
      notice: (text) => void notices.push(text),
      part: () => undefined,
      event: () => undefined,
    },
    () => Promise.resolve(session),
  )
}

test('a lab of which nothing is left to undo is up', async () => {
  await noteUndo(lab, 'lab run iscsi x', 'target-loss', [{ do: 'enable-targets', machine: 'target' }])
  expect((await up()).results).toEqual([])
  expect(notices).toEqual(['lab run iscsi x was killed: undoing what it left'])
  expect(await readJournal(lab)).toEqual([])
})

test('a lab with a fault that could not be undone is not up, whatever its checks say', async () => {
  await noteUndo(lab, 'lab run iscsi x', 'meteor', [
    { do: 'what only another version knows', machine: 'target' },
  ])
  await expect(up()).rejects.toMatchObject({
    code: 'not-undone',
    message: 'iscsi: not undone: meteor on target',
    hint: 'lab heal iscsi, or lab down iscsi',
  })
  expect(notices).toContain(
    'not undone: meteor on target: what only another version knows: unknown undo: what only another version knows',
  )
})

test('a damaged journal is reported before parts are made, which may take long', async () => {
  await mkdir(`${pathsOf(lab).faults}/1.json`, { recursive: true, mode: 0o700 })
  await expect(up()).rejects.toMatchObject({ code: 'bad-journal' })
  expect(made).toEqual([])
})
