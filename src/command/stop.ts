import { exitCodes, type ExitCode, LabError } from '../error.js'
import { leftOutLines } from '../plan/plan.js'
import { runPlan } from '../plan/runner.js'
import type { Report } from '../plan/step.js'
import { fileOptions } from '../steps/machines.js'
import { planStop } from '../up.js'
import { concluded } from './bring-up.js'
import { printFailures } from './fail.js'
import { loadRunning } from './kept-lab.js'
import { providerInUse } from './provider-in-use.js'
import { healFirst, lockFor, sessionFor, viewFor } from './with-lab.js'
import { printJson } from './json.js'
import { asJson, type Io, type Options, type Verb, withWait } from './verb.js'

/** Switches every machine off in good order; disks stay. Targets go last: others have their disks there. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const view = viewFor(io, options, lab)
  const release = await lockFor(lab, 'stop', options, io, view)
  try {
    const provider = await providerInUse(lab)
    if (!provider) throw new LabError('not-up', `${lab.name} is not up`, { hint: `lab up ${lab.name}` })
    let report: Report
    const session = await sessionFor(lab, provider, io.signal)
    try {
      await healFirst(session, view)
      const plan = planStop(lab, provider, await fileOptions(lab, provider))
      for (const line of leftOutLines(plan)) view.notice(line)
      report = await runPlan(plan, 'undo', session, () => undefined)
    } finally {
      await session.close()
    }
    const states = await provider.states(lab)
    const running = states.filter(({ status }) => status === 'running')
    await view.close()
    printFailures(lab, report, io)
    if (options.output === 'json') printJson(io, 'lab.stop/v1', { name: lab.name, machines: states })
    else
      io.stdout.write(
        running.length === 0
          ? `${lab.name}: every machine is off; its disks are kept. To go on: lab start ${lab.name}\n`
          : `${lab.name}: still running: ${running.map(({ name }) => name).join(', ')}\n`,
      )
    return running.length === 0 ? concluded(report) : exitCodes.failed
  } finally {
    await view.close()
    await release()
  }
}

export const verb: Verb = {
  options: [asJson, withWait],
  run,
}
