import type { ExitCode } from '../error.js'
import { runPlan } from '../plan/runner.js'
import { putBack } from '../snapshot/restore.js'
import { refuseUnlessThere } from '../snapshot/snapshot.js'
import { pathsOf } from '../state.js'
import { planCut } from '../up.js'
import { concluded, printFailures } from '../command-line/fail.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { up } from './up.js'
import { asJson, type Io, type Options, type Verb, withEvents, withWait } from '../command-line/verb.js'
import { withLab } from '../command-line/with-lab.js'

/**
 * Restores a lab from a snapshot. Running machines lose their power, because their unwritten data is not needed. Then
 * the lab is started and checked.
 */
const run = async (nameOrPath: string, snapshot: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const failed = await withLab(
    lab,
    { io, options, lock: 'restore', keepEvents: true },
    async ({ view, open }) => {
      const provider = await providerOf(lab)
      await refuseUnlessThere(lab, provider, snapshot)
      const session = await open(lab, provider)
      const names = (await provider.states(lab)).map(({ name }) => name)
      const report = await runPlan(planCut(lab, provider, names), 'undo', session, () => undefined)
      const code = concluded(report)
      if (code !== 0) {
        printFailures(lab, report, io)
        return code
      }
      await putBack(lab, provider, snapshot)
      view.notice(`${lab.name}: its disks are those of ${snapshot}`)
      return undefined
    },
  )
  return failed ?? up(pathsOf(lab).source, options, io, 'restore')
}

export const verb: Verb = {
  words: { name: 'a snapshot: lab snapshots LAB' },
  options: [asJson, withEvents, withWait],
  run,
}
