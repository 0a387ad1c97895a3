import type { ExitCode } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { bringUp } from '../lifecycle/bring-up.js'
import { readLab } from '../lifecycle/load-lab.js'
import { providerForUp } from '../lifecycle/provider-in-use.js'
import { reportJson } from '../plan/report.js'
import { succeeded } from '../plan/runner.js'
import type { Report } from '../plan/step.js'
import { maskKnown } from '../view/secrets.js'
import { concluded, printFailures } from '../command-line/fail.js'
import { printJson } from '../command-line/json.js'
import { labOnCluster } from '../lifecycle/existing-cluster.js'
import { labOnHosts } from '../lifecycle/existing-hosts.js'
import { summary } from '../lifecycle/summary.js'
import {
  asJson,
  type Io,
  type Options,
  type Verb,
  withCluster,
  withEvents,
  withHosts,
  withProvider,
  withSource,
  withWait,
  withYes,
} from '../command-line/verb.js'
import { withLab } from '../command-line/with-lab.js'

/** The verbs that bring a lab up. Only after `up` is its state the one that its file says. */
type Title = 'up' | 'start' | 'heal' | 'restore'

/** Brings a lab up, and prints how it went. */
export const up = async (
  nameOrPath: string,
  options: Options,
  io: Io,
  title: Title = 'up',
): Promise<ExitCode> => {
  const read = await readLab(nameOrPath, 'file')
  return withLab(read.lab, { io, options, lock: title, keepEvents: true }, async ({ view, open }) => {
    const notice = (text: string): void => view.notice(text)
    const onHosts = await labOnHosts(read.lab, options, io, notice)
    const lab = await labOnCluster(onHosts, options, io.signal, notice)
    const report = await bringUp(
      {
        lab,
        read,
        provider: await providerForUp(lab, options.provider, io.signal),
        source: { ...options, ask: io.ask },
        keepClean: title === 'up',
      },
      {
        signal: io.signal,
        agree: async (question) =>
          options.yes ? 'yes' : io.ask ? ((await io.ask(question)) ? 'yes' : 'no') : 'nobody',
        notice,
        part: (progress) => view.part(progress),
        event: (event) => view.event(event),
      },
      open,
    )
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.report/v1', reportJson(report, maskKnown))
    // Events contain everything, and own standard output.
    else if (!options.events) printReport(lab, report, io)
    return concluded(report)
  })
}

const printReport = (lab: Lab, report: Report, io: Io): void => {
  if (!succeeded(report)) printFailures(lab, report, io)
  else if (lab.cluster !== undefined || report.results.some(({ outcome }) => outcome === 'changed'))
    io.stdout.write(summary(lab, report))
  else io.stdout.write(`${lab.name} is up already: nothing to do (${report.seconds.toFixed(1)} s).\n`)
}

export const verb: Verb = {
  options: [withProvider, withHosts, ...withCluster, asJson, withEvents, withWait, withYes, ...withSource],
  run: (lab: string, options: Options, io: Io) => up(lab, options, io),
}
