/** The folder of a report: what is in it, and what happens to it. */
import { lstat, readFile, readdir, readlink, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { runMarkdown } from '../../src/report/markdown.js'
import { readRuns, runFiles, saveRun, startRun } from '../../src/report/folder.js'
import { temporaryFolder } from '../helpers/folder.js'
import { cutShort, good, nasty } from './runs.js'

describe('the folder of a report', () => {
  const started = new Date('2026-11-21T15:04:05.678Z')

  test('each run gets a dated folder of its own, even within a second', async () => {
    const folder = await temporaryFolder()
    const all = await Promise.all(
      Array.from({ length: 3 }, () => startRun(join(folder, 'runs'), 'drain', started)),
    )
    const name = '2026-11-21T15-04-05Z-drain'
    expect(all.sort()).toEqual([name, `${name}-2`, `${name}-3`].map((one) => join(folder, 'runs', one)))
  })

  test('every form of the report is written privately, and linked as the latest', async () => {
    const folder = join(await temporaryFolder(), 'runs')
    const first = await startRun(folder, 'drain', started)
    await saveRun(first, [cutShort])
    await saveRun(first, [good])
    const { json, junit, markdown, page } = runFiles
    expect((await readdir(first)).sort()).toEqual([json, junit, markdown, page].sort())
    expect((await stat(join(first, page))).mode & 0o777).toBe(0o600)
    expect(await readlink(join(folder, 'latest'))).toBe('2026-11-21T15-04-05Z-drain')
    expect(await readRuns(join(folder, 'latest'))).toEqual([good])
    const second = await startRun(folder, 'all', started)
    expect(await readRuns(join(folder, 'latest'))).toEqual([good])
    await saveRun(second, [good, nasty])
    expect(await readRuns(join(folder, 'latest'))).toEqual([good, nasty])
    expect((await lstat(join(folder, 'latest'))).isSymbolicLink()).toBe(true)
    expect((await readdir(folder)).sort()).toEqual([
      '2026-11-21T15-04-05Z-all',
      '2026-11-21T15-04-05Z-drain',
      'latest',
    ])
    expect(await readFile(join(folder, 'latest', markdown), 'utf8')).toBe(runMarkdown([good, nasty]))
  })

  test('a folder without a report, or with another file in its place, is refused', async () => {
    const folder = await temporaryFolder()
    await expect(readRuns(folder)).rejects.toMatchObject({ code: 'no-report', exitCode: 2 })
    for (const text of ['', '{', '{}', JSON.stringify({ ...good, verdict: 'MAYBE' })]) {
      await writeFile(join(folder, runFiles.json), text)
      await expect(readRuns(folder)).rejects.toMatchObject({
        code: 'bad-report',
        exitCode: 2,
        hint: 'lab run LAB SCENARIO writes a new one',
      })
    }
  })
})
