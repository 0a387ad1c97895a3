/** Limits how many runs are kept, so that reports do not fill a disk over months. */
import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { runFiles } from './folder.js'

/** The newest runs that are kept whatever their verdict, and the newest ones with findings. */
export const keptRuns = { newest: 50, withFindings: 200 } as const

/** A dated folder, as `startRun` names it. */
const isRun = (name: string): boolean => /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ-/.test(name)

/**
 * Whether every verdict of its report is PASS, so that nothing is lost with it. An unreadable report does not count.
 */
const allPassed = async (folder: string): Promise<boolean> => {
  try {
    const verdicts = [
      ...(await readFile(join(folder, runFiles.json), 'utf8')).matchAll(/"verdict":\s*"([A-Z]+)"/g),
    ].map(([, verdict]) => verdict)
    return verdicts.length > 0 && verdicts.every((verdict) => verdict === 'PASS')
  } catch {
    return false
  }
}

/**
 * Removes old runs: those that passed once there are 50 newer ones, and those with findings once there are 200 newer
 * ones with findings.
 * @returns the names of the removed runs, oldest first
 */
export const pruneRuns = async (
  runs: string,
  keep: { readonly newest: number; readonly withFindings: number } = keptRuns,
): Promise<readonly string[]> => {
  const names = (await readdir(runs).catch(() => [])).filter(isRun).sort().reverse()
  const gone: string[] = []
  let findings = 0
  for (const name of names.slice(keep.newest)) {
    const folder = join(runs, name)
    if (!(await stat(folder).catch(() => undefined))?.isDirectory()) continue
    if (!(await allPassed(folder)) && findings++ < keep.withFindings) continue
    await rm(folder, { recursive: true, force: true })
    gone.push(name)
  }
  return gone.reverse()
}
