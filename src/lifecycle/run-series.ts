/** Runs scenarios and experiments one after another, and keeps one report of all of them. */
import { join } from 'node:path'
import type { Plan } from '../context.js'
import { Interrupted, messageOf } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { runPlan } from '../plan/runner.js'
import type { Provider } from '../provider/provider.js'
import { registry } from '../registry.js'
import { runFiles, saveRun, startRun } from '../report/folder.js'
import { type HostSpeed, measureHost } from '../report/host.js'
import { keptRuns, pruneRuns } from '../report/prune.js'
import { runReport } from '../report/run.js'
import type { RunReport } from '../report/schema.js'
import { judged } from '../report/summary.js'
import type { Session } from '../session.js'
import { pathsOf } from '../state.js'
import { setClocks } from '../steps/clocks.js'
import { runExperiment } from '../trial/experiment.js'
import type { Facts } from '../trial/facts.js'
import type { Runnable } from '../trial/runnable.js'
import { runScenario, type ScenarioRequest } from '../trial/scenario.js'
import type { TrialEvent } from '../trial/trial-event.js'
import { planNow } from '../up.js'
import { maskKnown } from '../view/secrets.js'
import { healFirst, refuseUndone } from './heal.js'
import { versionsOf } from './versions.js'

/** What a series is shown with. */
export interface Audience {
  readonly notice: (text: string) => void
  readonly trial: (event: TrialEvent) => void
}

/** A lab that is healthy as far as `lab` can tell, and what every trial of a series needs to know of it. */
export interface Ready {
  readonly lab: Lab
  readonly session: Session
  /** Another session, which Ctrl-C does not end: it heals what a scenario broke. */
  readonly healer: Session
  readonly plan: Plan
  readonly host: HostSpeed
  readonly versions: Readonly<Record<string, string>>
}

/** Undoes what a killed run left, and corrects the clocks of machines whose host was asleep. */
export const makeReady = async (
  lab: Lab,
  provider: Provider,
  { session, healer }: Pick<Ready, 'session' | 'healer'>,
  notice: Audience['notice'],
): Promise<Ready> => {
  const healed = await healFirst(healer, notice)
  // On a host that was asleep, the clocks of the machines are behind, which is no fault of the lab.
  // Meanwhile, this host measures itself: the machines take their time to answer.
  const [corrected, host] = await Promise.all([setClocks(healer), measureHost()])
  for (const clock of corrected) notice(`${clock}: it was set`)
  const plan = await planNow(lab, provider)
  if (healed) {
    await runPlan(plan, 'apply', healer, () => undefined)
    // What needed an API server can be undone now. A run on top of another fault would prove nothing.
    await healFirst(healer, notice)
    await refuseUndone(lab)
  }
  return { lab, session, healer, plan, host, versions: await versionsOf(session) }
}

/** The result of a series, also of one that was interrupted. */
export interface SeriesResult {
  readonly reports: readonly RunReport[]
  /** Undefined: nothing was run. */
  readonly folder: string | undefined
  readonly interrupted: boolean
}

/** Who fences a lost node: the lab's agent, if its file asks for one, or else the run, if it is told to. */
const fencingOf = ({ fencing }: Lab, fence: boolean): ScenarioRequest['fencing'] =>
  fencing !== 'none' ? { by: 'agent', method: fencing } : fence ? { by: 'run', method: 'power' } : undefined

/** How a series is run. */
export interface SeriesOptions {
  /** The lab whose experiments run here, if it is another one. */
  readonly of: string | undefined
  /** Whether the run itself fences lost nodes, if the lab has no agent that does. */
  readonly fence: boolean
}

/** Runs each, removes old reports, and says so. */
export const runSeries = async (
  series: readonly Runnable[],
  ready: Ready,
  options: SeriesOptions,
  audience: Audience,
): Promise<SeriesResult> => {
  const result = await runEach(series, ready, options, audience)
  const gone = await pruneRuns(pathsOf(ready.lab).runs)
  if (gone.length > 0)
    audience.notice(
      `removed ${String(gone.length)} old runs that passed, or are older than ${String(keptRuns.withFindings)} with findings; the newest ${String(keptRuns.newest)} stay`,
    )
  return result
}

const runEach = async (
  series: readonly Runnable[],
  { lab, session, healer, plan, host, versions }: Ready,
  { of, fence }: SeriesOptions,
  { notice, trial }: Audience,
): Promise<SeriesResult> => {
  const fencing = fencingOf(lab, fence)
  const [first] = series
  if (!first) return { reports: [], folder: undefined, interrupted: false }
  const folder = await startRun(pathsOf(lab).runs, series.length === 1 ? first.name : 'all', new Date())
  const reportOf = (facts: Facts): RunReport => runReport({ ...facts, host, of }, maskKnown)
  const done: RunReport[] = []
  for (const [index, each] of series.entries()) {
    let latest: RunReport | undefined
    const common = {
      registry,
      context: session,
      healer,
      plan,
      versions,
      ledgerPath: join(
        folder,
        series.length === 1 ? runFiles.ledger : `${String(index + 1)}-${each.name}.${runFiles.ledger}`,
      ),
      notice: (text: string) => notice(`${each.name}: ${text}`),
      event: trial,
      save: async (facts: Facts) => {
        const now = reportOf(facts)
        latest = now
        const [earliest, ...others] = done
        await saveRun(folder, earliest ? [earliest, ...others, now] : [now])
      },
    }
    try {
      const report = reportOf(
        'experiment' in each
          ? await runExperiment({ ...common, experiment: each.experiment })
          : await runScenario({ ...common, scenario: each.scenario, fencing }),
      )
      done.push(report)
      trial(judged(report))
    } catch (error) {
      if (latest) done.push(latest)
      if (error instanceof Interrupted || session.signal.aborted)
        return { reports: done, folder, interrupted: true }
      // A scenario that could not run says nothing about the next one.
      if (series.length === 1 || !latest) throw error
      notice(`${each.name}: ${messageOf(error)}`)
    }
  }
  return { reports: done, folder, interrupted: false }
}
