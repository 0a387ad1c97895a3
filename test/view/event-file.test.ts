import { execFile } from 'node:child_process'
import { statSync } from 'node:fs'
import { appendFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { eventFile, type KeptRecord, readEvents } from '../../src/view/event-file.js'
import { temporaryFolder } from '../helpers/folder.js'
import { compileStage } from './terminal.js'

let folder = ''
let path = ''
beforeEach(async () => {
  folder = await temporaryFolder()
  path = join(folder, 'events.ndjson')
})

const textsOf = (records: readonly KeptRecord[]): readonly string[] =>
  records.map((record) => (record.type === 'notice' ? record.text : record.type))
const kept = async (): Promise<readonly string[]> => {
  const records: KeptRecord[] = []
  for await (const record of readEvents(path, false, new AbortController().signal)) records.push(record)
  return textsOf(records)
}
const say = (text: string, longest?: number): void => {
  eventFile(path, longest).take({ type: 'notice', text })
}

describe('the kept events of a lab', () => {
  test('the kept events are the records that --events prints, in order, readable only by the owner', async () => {
    for (const text of ['one', 'two']) say(text)
    expect(JSON.parse((await readFile(path, 'utf8')).split('\n')[0]!)).toMatchObject({
      schema: 'lab.events/v1',
      type: 'notice',
      text: 'one',
    })
    expect(await kept()).toEqual(['one', 'two'])
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  test('the kept events stay below twice their limit, and the newest ones remain', async () => {
    const longest = 10_000
    const file = eventFile(path, longest)
    for (let index = 0; index < 1000; index++) file.take({ type: 'notice', text: String(index) })
    const sizes = [(await stat(path)).size, (await stat(join(folder, 'events.1.ndjson'))).size]
    for (const size of sizes) expect(size).toBeLessThan(longest + 200)
    const texts = await kept()
    expect(texts.length).toBeGreaterThan(50)
    expect(texts).toEqual(Array.from({ length: texts.length }, (_, at) => String(1000 - texts.length + at)))
  })

  test('a last line that a power cut cut short loses only its own record', async () => {
    say('before')
    await appendFile(path, '{"schema":"lab.events/v1","time":"2026-01-01T')
    say('after')
    expect(await kept()).toEqual(['before', 'after'])
  })

  test('several writers each append whole lines', async () => {
    const writers = [eventFile(path), eventFile(path), eventFile(path)]
    for (let index = 0; index < 100; index++)
      for (const [who, writer] of writers.entries()) writer.take({ type: 'notice', text: `${who}-${index}` })
    expect(new Set(await kept()).size).toBe(300)
  })

  test('processes that rotate the file at the same instant never replace a full file with a short one', async () => {
    const stage = await compileStage()
    onTestFinished(() => stage.remove())
    const longest = 3000
    const source = `const { eventFile } = await import(process.env.MODULE)
      const file = eventFile(process.env.EVENTS, ${longest})
      for (let index = 0; index < 2000; index++)
        file.take({ type: 'notice', text: process.env.WHO + ' ' + String(index).padStart(4, '0') })`
    const older = join(folder, 'events.1.ndjson')
    const sizes: number[] = []
    const looking = setInterval(() => {
      sizes.push(statSync(older, { throwIfNoEntry: false })?.size ?? longest + 1)
    }, 1)
    await Promise.all(
      ['a', 'b', 'c'].map((who) =>
        promisify(execFile)(process.execPath, ['--input-type=module', '--eval', source], {
          env: { MODULE: stage.module('src/view/event-file.js'), EVENTS: path, WHO: who },
        }),
      ),
    )
    clearInterval(looking)
    expect(sizes.filter((size) => size <= longest)).toEqual([])
    expect((await readdir(folder)).sort()).toEqual(['events.1.ndjson', 'events.ndjson'])
    const texts = await kept()
    // The last record of each process is there, whichever wrote last.
    expect(texts.filter((text) => text.endsWith(' 1999')).length).toBeGreaterThan(0)
    expect(new Set(texts).size).toBe(texts.length)
  })

  test("events wait until up has made the lab's folder, and never recreate a folder that down removed", async () => {
    const later = join(folder, 'later')
    const file = eventFile(join(later, 'events.ndjson'))
    file.take({ type: 'notice', text: 'before there was a folder' })
    await expect(stat(later)).rejects.toThrow('ENOENT')
    await mkdir(later)
    file.take({ type: 'notice', text: 'then' })
    path = join(later, 'events.ndjson')
    expect(await kept()).toEqual(['before there was a folder', 'then'])
  })
})

test('lab events --follow continues when the file is rotated', async () => {
  say('old')
  const ending = new AbortController()
  const records: KeptRecord[] = []
  const following = (async () => {
    for await (const record of readEvents(path, true, ending.signal)) records.push(record)
  })()
  await delay(50)
  say('new')
  await expect.poll(() => textsOf(records)).toEqual(['old', 'new'])
  say('last of the old file')
  await rename(path, join(folder, 'events.1.ndjson'))
  say('first of the new file')
  await expect
    .poll(() => textsOf(records))
    .toEqual(['old', 'new', 'last of the old file', 'first of the new file'])
  ending.abort()
  await following
})

test("lab events --follow ends with the last record when the lab's folder is removed", async () => {
  const labFolder = join(folder, 'iscsi')
  await mkdir(labFolder)
  path = join(labFolder, 'events.ndjson')
  say('up')
  const records: KeptRecord[] = []
  const following = (async () => {
    for await (const record of readEvents(path, true, new AbortController().signal)) records.push(record)
  })()
  await expect.poll(() => textsOf(records)).toEqual(['up'])
  say('down')
  await rm(labFolder, { recursive: true })
  await following
  expect(textsOf(records)).toEqual(['up', 'down'])
})

test('a lab without events has none, and lines that are not records are skipped', async () => {
  expect(await kept()).toEqual([])
  await writeFile(path, 'null\n[]\n{"type":"notice"}\n\n')
  expect(await kept()).toEqual([])
})
