import type { ExitCode } from '../error.js'
import { reportJson, reportTable } from '../plan/report.js'
import { runPlan } from '../plan/runner.js'
import { planNow } from '../up.js'
import { maskKnown } from '../view/secrets.js'
import { wantsColor } from '../view/view.js'
import { concluded } from '../command-line/fail.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { withLab } from '../command-line/with-lab.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb, withEvents } from '../command-line/verb.js'

/** Runs every check on the running lab. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const provider = await providerOf(lab)
  return withLab(lab, { io, options, keepEvents: false }, async ({ view, open }) => {
    const session = await open(lab, provider)
    const report = await runPlan(await planNow(lab, provider), 'check', session, (event) => {
      if (options.events) view.event(event)
    })
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.report/v1', reportJson(report, maskKnown))
    else if (!options.events) io.stdout.write(`${reportTable(report, wantsColor(io.stdout), maskKnown)}\n`)
    return concluded(report)
  })
}

export const verb: Verb = {
  options: [asJson, withEvents],
  run,
}
