import { exitCodes, type ExitCode, LabError } from '../error.js'
import { healFirst } from '../lifecycle/heal.js'
import { leftOutLines } from '../plan/plan.js'
import { runPlan } from '../plan/runner.js'
import { fileOptions } from '../steps/machines.js'
import { planStop } from '../up.js'
import { concluded, printFailures } from '../command-line/fail.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerInUse } from '../lifecycle/provider-in-use.js'
import { withLab } from '../command-line/with-lab.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb, withWait } from '../command-line/verb.js'

/** Shuts down all machines in order and keeps their disks. Targets go last, since they serve the disks of others. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  return withLab(lab, { io, options, lock: 'stop', keepEvents: true }, async ({ view, open }) => {
    const provider = await providerInUse(lab)
    if (!provider) throw new LabError('not-up', `${lab.name} is not up`, { hint: `lab up ${lab.name}` })
    const session = await open(lab, provider)
    await healFirst(session, (text) => view.notice(text))
    const plan = planStop(lab, provider, await fileOptions(lab, provider))
    for (const line of leftOutLines(plan)) view.notice(line)
    const report = await runPlan(plan, 'undo', session, () => undefined)
    const states = await provider.states(lab)
    const running = states.filter(({ status }) => status === 'running')
    await view.close()
    printFailures(lab, report, io)
    if (options.output === 'json') printJson(io, 'lab.stop/v1', { name: lab.name, machines: states })
    else
      io.stdout.write(
        running.length === 0
          ? `${lab.name}: every machine is off; its disks are kept. To start them again: lab start ${lab.name}\n`
          : `${lab.name}: still running: ${running.map(({ name }) => name).join(', ')}\n`,
      )
    return running.length === 0 ? concluded(report) : exitCodes.failed
  })
}

export const verb: Verb = {
  options: [asJson, withWait],
  run,
}
