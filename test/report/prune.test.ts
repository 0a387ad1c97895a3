/** Reports of runs do not fill a disk over months, and what was found is kept longest. */
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { pruneRuns } from '../../src/report/prune.js'
import { temporaryFolder } from '../helpers/folder.js'

let runs = ''
beforeEach(async () => {
  runs = await temporaryFolder()
})

/** The folder of the run of a day in November, with the verdicts of its report; undefined: it has none. */
const run = async (day: number, ...verdicts: readonly (string | undefined)[]): Promise<string> => {
  const name = `2026-11-${String(day).padStart(2, '0')}T10-00-00Z-drain`
  await mkdir(join(runs, name))
  const [first] = verdicts
  if (first !== undefined)
    await writeFile(
      join(runs, name, 'report.json'),
      JSON.stringify({ runs: verdicts.map((verdict) => ({ verdict })) }, null, 2),
    )
  return name
}

describe('the runs of a lab', () => {
  test('runs that passed are removed once there are enough newer ones, oldest first', async () => {
    const names = [
      await run(1, 'PASS'),
      await run(2, 'PASS', 'PASS'),
      await run(3, 'PASS'),
      await run(4, 'PASS'),
    ]
    expect(await pruneRuns(runs, { newest: 2, withFindings: 9 })).toEqual(names.slice(0, 2))
    expect((await readdir(runs)).sort()).toEqual(names.slice(2))
  })

  test('runs stay longer with a finding, without a verdict, or without a report', async () => {
    const kept = [await run(1, 'FAIL'), await run(2, 'PASS', 'UNKNOWN'), await run(3, undefined)]
    const passed = await run(4, 'PASS')
    await run(5, 'PASS')
    expect(await pruneRuns(runs, { newest: 1, withFindings: 3 })).toEqual([passed])
    expect(await pruneRuns(runs, { newest: 1, withFindings: 1 })).toEqual(kept.slice(0, 2))
  })

  test('nothing but runs is removed', async () => {
    const name = await run(1, 'PASS')
    await writeFile(join(runs, 'notes.txt'), '')
    await writeFile(join(runs, '2026-11-02T10-00-00Z-a-file'), '')
    await symlink(name, join(runs, 'latest'))
    expect(await pruneRuns(runs, { newest: 0, withFindings: 0 })).toEqual([name])
    expect((await readdir(runs)).sort()).toEqual(['2026-11-02T10-00-00Z-a-file', 'latest', 'notes.txt'])
    expect(await pruneRuns(join(runs, 'nowhere'))).toEqual([])
  })
})
