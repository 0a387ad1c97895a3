import { Option } from 'commander'
import { join } from 'node:path'
import { type ExitCode, exitCodes, LabError } from '../error.js'
import { compareRuns } from '../report/compare.js'
import { runMarkdown } from '../report/markdown.js'
import { exitCodeOf } from '../report/exit-code.js'
import { readRuns, runFiles } from '../report/folder.js'
import type { RunReport } from '../report/schema.js'
import { pathsOf } from '../state.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb } from '../command-line/verb.js'

const run = async (
  nameOrPath: string,
  options: Options & { readonly compare?: readonly string[] },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const { runs } = pathsOf(lab)
  const folderOf = (name: string): string => (name.includes('/') ? name : join(runs, name))
  if (options.compare) {
    const [one, other, ...more] = options.compare
    if (one === undefined || other === undefined || more.length > 0)
      throw new LabError('bad-compare', '--compare: name two runs', {
        hint: `ls ${runs}`,
        exitCode: exitCodes.usage,
      })
    const [[first], [second]] = await Promise.all([readRuns(folderOf(one)), readRuns(folderOf(other))])
    if (first && second) io.stdout.write(`${compareRuns(first, second)}\n`)
    return exitCodes.ok
  }
  const latest = join(runs, 'latest')
  const reports = (await readRuns(latest)) as [RunReport, ...RunReport[]]
  if (options.output === 'json') printJson(io, 'lab.runs/v1', { runs: reports })
  else io.stdout.write(`${runMarkdown(reports)}\nreport: ${join(latest, runFiles.page)}\n`)
  return exitCodeOf(reports)
}

export const verb: Verb = {
  options: [new Option('--compare <runs...>', 'compare the runs of two folders in one table'), asJson],
  run,
}
