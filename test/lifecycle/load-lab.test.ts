/** What read-only commands know of a lab: the parsed lab file that is kept next to its copy. */
import { readdirSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { loadRunning, rememberLab } from '../../src/lifecycle/load-lab.js'
import { loadLab, parseLab, readLab } from '../../src/registry.js'
import { shipped } from '../helpers/shipped.js'
import { temporaryFolder } from '../helpers/folder.js'

const valid = join(import.meta.dirname, '..', 'lab', 'valid')
const files = [
  ...shipped.map(({ file }) => file),
  ...readdirSync(valid)
    .filter((name) => name.endsWith('.yaml'))
    .map((name) => join(valid, name)),
]

describe('the copy of the parsed lab file', () => {
  let folder: string
  beforeEach(async () => {
    const state = await temporaryFolder()
    const before = process.env['LAB_STATE']
    process.env['LAB_STATE'] = state
    onTestFinished(() => {
      if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
      else process.env['LAB_STATE'] = before
    })
    folder = join(state, 'iscsi')
  })

  test.each(files)('the copy of %s equals the parsed file', async (file) => {
    const lab = parseLab(await readFile(file, 'utf8'), file)
    expect(JSON.parse(JSON.stringify(lab))).toEqual(lab)
  })

  const kept = (): string => join(folder, 'lab.json')
  const remember = async () => rememberLab(await readLab('iscsi'))
  /** Changes the kept file in a way that shows whether it was used. */
  const edit = async (
    change: (parsed: { program: string; text: string; lab: { description: string } }) => void,
  ) => {
    const parsed = JSON.parse(await readFile(kept(), 'utf8'))
    parsed.lab.description = 'from lab.json'
    change(parsed)
    await writeFile(kept(), JSON.stringify(parsed))
  }
  const description = async () => (await loadRunning('iscsi')).description

  test('commands use the copy', async () => {
    await remember()
    await edit(() => undefined)
    expect(await description()).toBe('from lab.json')
  })

  test.each([
    { why: 'of another program', change: (parsed: { program: string }) => (parsed.program = '1') },
    { why: 'of another text', change: (parsed: { text: string }) => (parsed.text += '\n') },
  ])('the copy is ignored when it is $why', async ({ change }) => {
    await remember()
    await edit((parsed) => void change(parsed))
    expect(await description()).toBe((await loadLab('iscsi')).description)
  })

  test.each(['', '{"program": ', 'null', '[]'])(
    'the copy is ignored when it is damaged: %s',
    async (text) => {
      await remember()
      await writeFile(kept(), text)
      expect(await description()).toBe((await loadLab('iscsi')).description)
    },
  )

  test('the copy is as private as the lab file', async () => {
    await remember()
    const { stat } = await import('node:fs/promises')
    expect((await stat(kept())).mode & 0o777).toBe(0o600)
  })
})
