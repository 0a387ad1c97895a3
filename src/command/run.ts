import { allMedia } from '../trial/ledger.js'
import { Option } from 'commander'
import { join } from 'node:path'
import { type ExitCode, exitCodes, Interrupted, LabError } from '../error.js'
import type { Experiment } from '../trial/experiment-context.js'
import { runExperiment } from '../trial/experiment.js'
import type { Lab, ScenarioSpec } from '../lab/lab.js'
import { imagesOf } from '../lab/images.js'
import { didYouMean } from '../lab/suggest.js'
import { shell } from '../machine/sh.js'
import { healFirst } from '../lifecycle/heal.js'
import { runPlan } from '../plan/runner.js'
import { looksText, recoveryText } from '../report/words.js'
import { keptRuns, pruneRuns } from '../report/prune.js'
import { runFiles, saveRun, startRun } from '../report/folder.js'
import { measureHost } from '../report/host.js'
import type { Facts } from '../trial/facts.js'
import type { RunReport } from '../report/schema.js'
import { runReport } from '../report/run.js'
import { spanText } from '../report/checks.js'
import { runScenario, type ScenarioRequest } from '../trial/scenario.js'
import type { TrialEvent } from '../trial/trial-event.js'
import { setClocks } from '../steps/clocks.js'
import { pathsOf } from '../state.js'
import { registry } from '../registry.js'
import type { Session } from '../session.js'
import { planNow } from '../up.js'
import { version } from '../version.js'
import { maskKnown } from '../view/secrets.js'
import { loadLab, loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { withLab } from '../command-line/with-lab.js'
import { exitCodeOf } from './report.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb, withWait } from '../command-line/verb.js'

export interface RunOptions extends Options {
  readonly all?: boolean
  /** The lab on whose machines the experiments run. */
  readonly on?: string
  readonly fence?: boolean
}

/** A scenario of the lab file or an experiment that it names. */
type Runnable =
  | { readonly name: string; readonly description: string; readonly scenario: ScenarioSpec }
  | { readonly name: string; readonly description: string; readonly experiment: Experiment }

const runnables = (lab: Lab): readonly Runnable[] => [
  ...lab.scenarios.map((scenario) => ({ name: scenario.name, description: scenario.description, scenario })),
  ...lab.experiments.flatMap(({ name }) =>
    registry.experiments
      .filter((experiment) => experiment.name === name)
      .map((experiment) => ({ name, description: experiment.description, experiment })),
  ),
]

/** The end of the name of a series of scenarios, which are run one after another. */
const seriesEnd = '-any'

/** @throws LabError for names that the lab does not have */
export const chosen = (lab: Lab, names: readonly string[], { all }: RunOptions): readonly Runnable[] => {
  const there = runnables(lab)
  const known = there.map(({ name }) => name)
  const listed = there.map(({ name, description }) => `  ${name.padEnd(20)}  ${description}`).join('\n')
  if (known.length === 0)
    throw new LabError('no-scenarios', `${lab.name} has no scenarios and no experiments`, {
      hint: `add scenarios or experiments to ${lab.file}; lab schema says how`,
      exitCode: exitCodes.usage,
    })
  if (all) {
    if (names.length > 0)
      throw new LabError('bad-scenarios', '--all and names of scenarios exclude each other', {
        exitCode: exitCodes.usage,
      })
    return there
  }
  if (names.length === 0)
    throw new LabError('bad-scenarios', `which scenario of ${lab.name}?\n${listed}`, {
      hint: `lab run ${lab.name} ${known[0] ?? ''}, or --all`,
      exitCode: exitCodes.usage,
    })
  return names.flatMap((name) => {
    const found = there.filter((candidate) => candidate.name === name)
    // `power-cut-any` is a series: every scenario whose name begins with it.
    if (found.length === 0 && name.endsWith(seriesEnd))
      found.push(...there.filter((candidate) => candidate.name.startsWith(`${name}-`)))
    if (found.length === 0)
      throw new LabError(
        'no-scenario',
        `${lab.name} has no scenario ${name}${didYouMean(name, known)}\n${listed}`,
        { hint: `lab run ${lab.name} ${known[0] ?? ''}`, exitCode: exitCodes.usage },
      )
    return found
  })
}

/** The tested versions, so that two reports can be compared: those of lab itself and of what runs on its machines. */
export const versionsOf = async (session: Session): Promise<Readonly<Record<string, string>>> => {
  const { lab, signal } = session
  const [machine] = lab.machines
  const kernel = machine
    ? await session
        .machine(machine.name)
        .run(shell`uname -r`, { signal, timeout: 10 })
        .catch(() => 'not known')
    : 'not known'
  return {
    lab: version,
    node: process.versions.node,
    kernel,
    ...(lab.kubernetes ? { kubernetes: lab.kubernetes.version } : {}),
  }
}

const seconds = (milliseconds: number | null): string =>
  milliseconds === null ? 'not seen' : spanText(milliseconds)

/** Shortens evidence, which the report has in full. */
const shortly = (saw: string): string => (saw.length > 200 ? `${saw.slice(0, 200)}…` : saw)

/** The summary for people at a terminal; the rest is in the report. */
export const shortReport = (report: RunReport): string =>
  [
    `${report.verdict}  ${report.scenario.name}  (${report.seconds.toFixed(1)} s, failover ${report.failover}, fencing ${report.fencing})`,
    ...report.checks
      .filter(({ group, outcome }) => group === 'claims' && outcome === 'passed')
      .map(({ title, saw }) => `  ✔ ${title}: ${saw}`),
    ...report.figures.map(
      ({ title, ms, seed }) =>
        `  ${seconds(ms).padStart(9)}  ${title}${seed ? `; in the walkthrough ${seconds(seed.ms)} (${seed.how})` : ''}`,
    ),
    ...report.moments
      .filter(({ ms }) => ms !== null)
      .map(
        ({ name, title, ms, detail }) => `  ${name}  ${seconds(ms).padStart(8)}  ${title}: ${detail ?? ''}`,
      ),
    ...report.budgets
      .filter(({ measured, wanted }) => measured !== null || wanted !== null)
      .map(
        ({ name, measured, wanted }) =>
          `  ${name}: ${seconds(measured)}${wanted === null ? '' : `, limit ${seconds(wanted)}`}`,
      ),
    ...(recoveryText(report) === undefined ? [] : [`  recovered: ${recoveryText(report) ?? ''}`]),
    ...looksText(report).map((text) => `  steady state ${shortly(text)}`),
    ...report.checks
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ outcome, title, saw }) => `  ${outcome === 'failed' ? '✖' : '?'} ${title}: ${shortly(saw)}`),
    ...(report.data
      ? allMedia.flatMap((medium) => {
          if (medium === 'config' && !report.data?.tally.config) return []
          const { acknowledged, sent } = report.data?.tally[medium] ?? { acknowledged: 0, sent: 0 }
          // The ledger of an experiment contains only rows.
          if (sent === 0 && report.figures.length > 0) return []
          return `  ${{ row: 'rows', file: 'lines of the file', config: 'ConfigMaps' }[medium]}: ${String(acknowledged)} of ${String(sent)} acknowledged`
        })
      : []),
    ...(report.data?.readBack?.fromDisk
      ? [`  read back from the disk, in ${report.data.readBack.seconds.toFixed(1)} s`]
      : []),
    ...(report.data ? [`  findings: ${String(report.data.findings.length)}`] : []),
    ...(report.checks.some(({ group, outcome }) => group === 'before' && outcome !== 'passed')
      ? [`  The lab was unhealthy before the run, and was left as it was: lab heal ${report.lab}`]
      : []),
    '',
  ].join('\n')

const judged = ({ scenario, seconds, verdict, checks }: RunReport): TrialEvent => ({
  trial: scenario.name,
  what: 'judged',
  ms: Math.round(seconds * 1000),
  fault: null,
  machines: [],
  ok: verdict === 'UNKNOWN' ? null : verdict === 'PASS',
  detail: [
    verdict,
    ...checks
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ title, saw }) => `${title}: ${shortly(saw)}`),
  ].join('; '),
})

/**
 * The running lab with the experiments and manifests of another one.
 * @throws LabError if its machines lack something that the experiments need
 */
const borrowed = (course: Lab, machines: Lab): Lab => {
  const refuse = (what: string): never => {
    throw new LabError('not-on', `${course.name} cannot run on ${machines.name}: ${what}`, {
      hint: `lab up ${course.name}`,
      exitCode: exitCodes.usage,
    })
  }
  if (!machines.kubernetes) refuse('it has no Kubernetes')
  if (course.workloads.length > 0 || course.database) refuse('its experiments are about what lab up deploys')
  const there = imagesOf(machines)
  const images = imagesOf(course).filter((image) => !there.includes(image))
  if (images.length > 0) refuse(`its nodes have no ${images.join(', ')}`)
  const classes = course.storage.filter(
    (wanted) =>
      !machines.storage.some(
        (given) =>
          given.class === wanted.class && given.kind === wanted.kind && given.default === wanted.default,
      ),
  )
  if (classes.length > 0)
    refuse(`it has no such storage class as ${classes.map((storage) => storage.class).join(', ')}`)
  return { ...machines, manifests: course.manifests, experiments: course.experiments, scenarios: [] }
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
  const scenarios = chosen(trying, names, options)
  const provider = await providerOf(lab)
  return withLab(lab, { io, options, lock: 'run', keepEvents: true }, async ({ view, open }) => {
    // Ctrl-C ends the scenario but must not end the healing, which therefore has its own session.
    const healer = await open(trying, provider, new AbortController().signal)
    const session = await open(trying, provider)
    const healed = await healFirst(healer, (text) => view.notice(text))
    // On a host that was asleep, the clocks of the machines are behind, which is no fault of the lab.
    // Meanwhile, this host measures itself: the machines take their time to answer.
    const [corrected, host] = await Promise.all([setClocks(healer), measureHost()])
    for (const clock of corrected) view.notice(`${clock}: it was set`)
    const reportOf = (facts: Facts): RunReport =>
      runReport({ ...facts, host, of: course?.name === lab.name ? undefined : course?.name }, maskKnown)
    const plan = await planNow(lab, provider)
    if (healed) await runPlan(plan, 'apply', healer, () => undefined)
    const versions = await versionsOf(session)
    const fencing: ScenarioRequest['fencing'] =
      lab.fencing === 'none'
        ? options.fence
          ? { by: 'run', method: 'power' }
          : undefined
        : { by: 'agent', method: lab.fencing }
    const [first] = scenarios
    const title = scenarios.length === 1 && first ? first.name : 'all'
    let folder: string | undefined
    const done: RunReport[] = []
    let interrupted = false
    for (const [index, scenario] of scenarios.entries()) {
      const place = (folder ??= await startRun(pathsOf(lab).runs, title, new Date()))
      let latest: RunReport | undefined
      const ledgerOf = (place: string, index: number): string =>
        join(
          place,
          scenarios.length === 1
            ? runFiles.ledger
            : `${String(index + 1)}-${scenario.name}.${runFiles.ledger}`,
        )
      const common = {
        registry,
        context: session,
        healer,
        plan,
        versions,
        ledgerPath: ledgerOf(place, index),
        notice: (text: string) => view.notice(`${scenario.name}: ${text}`),
        event: (event: TrialEvent) => view.trial(event),
        save: async (facts: Facts) => {
          const now = reportOf(facts)
          latest = now
          const [earliest, ...others] = done
          await saveRun(place, earliest ? [earliest, ...others, now] : [now])
        },
      }
      try {
        const facts =
          'experiment' in scenario
            ? await runExperiment({
                ...common,
                experiment: scenario.experiment,
              })
            : await runScenario({
                ...common,
                scenario: scenario.scenario,
                fencing,
              })
        const report = reportOf(facts)
        done.push(report)
        view.trial(judged(report))
      } catch (error) {
        if (latest) done.push(latest)
        // A scenario that could not run says nothing about the next one, unless the run was interrupted.
        if (!(error instanceof Interrupted) && !io.signal.aborted && scenarios.length > 1 && latest)
          view.notice(`${scenario.name}: ${error instanceof Error ? error.message : String(error)}`)
        else if (error instanceof Interrupted || io.signal.aborted) {
          interrupted = true
          break
        } else throw error
      }
    }
    const gone = await pruneRuns(pathsOf(lab).runs)
    if (gone.length > 0)
      view.notice(
        `removed ${String(gone.length)} old runs that passed, or are older than ${String(keptRuns.withFindings)} with findings; the newest ${String(keptRuns.newest)} stay`,
      )
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.runs/v1', { runs: done })
    else {
      for (const report of done) io.stdout.write(shortReport(report))
      if (folder !== undefined) io.stdout.write(`report: ${join(folder, runFiles.page)}\n`)
    }
    return interrupted ? exitCodes.interrupted : exitCodeOf(done)
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
