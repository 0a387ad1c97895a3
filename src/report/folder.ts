/** Where reports are kept: a dated folder per run, and a link `latest` to the newest one with a report. */
import { mkdir, readFile, rename, rm, symlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import { exitCodes, LabError } from '../error.js'
import { writePrivate } from '../state.js'
import { runMarkdown } from './markdown.js'
import { runSchema, type RunReport } from './schema.js'

/** Names of the files in the folder of a run. */
export const runFiles = {
  json: 'report.json',
  junit: 'junit.xml',
  markdown: 'report.md',
  page: 'report.html',
  ledger: 'ledger.ndjson',
} as const

/**
 * Makes the folder of a new run: `runs/2026-11-21T15-04-05Z-drain`, with a number appended if another run began in
 * the same second.
 * @param runs see `LabPaths.runs`
 * @returns its absolute path
 */
export const startRun = async (runs: string, scenario: string, started: Date): Promise<string> => {
  await mkdir(runs, { recursive: true, mode: 0o700 })
  const name = `${started
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '-')}-${scenario}`
  for (let n = 1; ; n++) {
    const folder = join(runs, n === 1 ? name : `${name}-${String(n)}`)
    try {
      await mkdir(folder, { mode: 0o700 })
      return folder
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
}

/**
 * Writes the report of a run in all its forms, each file as a whole, and then makes it the latest one. It is called
 * early with `interrupted` set, and again when more is known, so that a run leaves a report however it ends.
 */
export const saveRun = async (
  folder: string,
  reports: readonly [RunReport, ...RunReport[]],
): Promise<void> => {
  // Loaded here: reading a report needs no template engine.
  const { runJson, runJunit, runPage } = await import('./documents.js')
  await writePrivate(join(folder, runFiles.junit), runJunit(reports))
  await writePrivate(join(folder, runFiles.markdown), runMarkdown(reports))
  await writePrivate(join(folder, runFiles.page), runPage(reports))
  // Written last: if it exists, the others do as well.
  await writePrivate(join(folder, runFiles.json), runJson(reports))
  const link = join(dirname(folder), 'latest')
  const next = `${link}.${String(process.pid)}.new`
  await rm(next, { force: true })
  await symlink(basename(folder), next)
  await rename(next, link)
}

const runsSchema = z.object({ schema: z.literal('lab.runs/v1'), runs: z.array(runSchema).min(1) })

/**
 * @param folder of a run, or the link `latest`
 * @throws LabError when it has no report
 */
export const readRuns = async (folder: string): Promise<readonly RunReport[]> => {
  const path = join(folder, runFiles.json)
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new LabError('no-report', `${path}: contains no report`, {
      cause: error,
      exitCode: exitCodes.usage,
      hint: 'lab run LAB SCENARIO writes one',
    })
  })
  try {
    const value: unknown = JSON.parse(text)
    const one = runSchema.safeParse(value)
    return one.success ? [one.data] : runsSchema.parse(value).runs
  } catch (error) {
    throw new LabError('bad-report', `${path}: not a report of lab run`, {
      cause: error,
      exitCode: exitCodes.usage,
      hint: 'lab run LAB SCENARIO writes a new one',
      log: path,
    })
  }
}
