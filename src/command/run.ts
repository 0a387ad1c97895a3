import { Option } from 'commander'
import { join } from 'node:path'
import { asJson, type Io, type Options, type Verb, withWait } from '../command-line/verb.js'
import { printJson } from '../command-line/json.js'
import { withLab } from '../command-line/with-lab.js'
import { type ExitCode, exitCodes } from '../error.js'
import { loadLab, loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { makeReady, runSeries } from '../lifecycle/run-series.js'
import { registry } from '../registry.js'
import { exitCodeOf } from '../report/exit-code.js'
import { runFiles } from '../report/folder.js'
import { shortReport } from '../report/summary.js'
import { borrowed, chosen } from '../trial/runnable.js'

interface RunOptions extends Options {
  readonly all?: boolean
  /** The lab on whose machines the experiments run. */
  readonly on?: string
  readonly fence?: boolean
}

/** Runs scenarios one after another; the lab is healed after each. */
const run = async (
  nameOrPath: string,
  names: readonly string[],
  options: RunOptions,
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(options.on ?? nameOrPath)
  const course = options.on === undefined ? undefined : await loadLab(nameOrPath)
  const trying = course === undefined ? lab : borrowed(course, lab)
  const series = chosen(trying, registry, names, options.all ?? false)
  const provider = await providerOf(lab)
  return withLab(lab, { io, options, lock: 'run', keepEvents: true }, async ({ view, open }) => {
    const audience = {
      notice: (text: string) => view.notice(text),
      trial: (event: Parameters<typeof view.trial>[0]) => view.trial(event),
    }
    // Ctrl-C ends the scenario but must not end the healing, which therefore has its own session.
    const healer = await open(trying, provider, new AbortController().signal)
    const session = await open(trying, provider)
    const ready = await makeReady(lab, provider, { session, healer }, audience.notice)
    const of = course?.name === lab.name ? undefined : course?.name
    const fence = options.fence ?? false
    const { reports, folder, interrupted } = await runSeries(series, ready, { of, fence }, audience)
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.runs/v1', { runs: reports })
    else {
      for (const report of reports) io.stdout.write(shortReport(report))
      if (folder !== undefined) io.stdout.write(`report: ${join(folder, runFiles.page)}\n`)
    }
    return interrupted ? exitCodes.interrupted : exitCodeOf(reports)
  })
}

export const verb: Verb = {
  words: { scenarios: 'names of scenarios of the lab file, or NAME-any for all whose names begin with it' },
  options: [
    new Option('--all', 'run every scenario of the lab file, with one report'),
    new Option('--on <lab>', 'run experiments on the machines of another lab that is up'),
    new Option('--fence', 'cut the power of a lost node before it is replaced (like fencing: power)'),
    asJson,
    withWait,
  ],
  run,
}
