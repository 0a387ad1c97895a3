import { machinesWith, type Lab, nfsServerOf, nodesOf, portalOf } from '../lab/lab.js'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { sizeText } from '../lab/units.js'
import { leftOutLines } from '../plan/plan.js'
import { reportJson } from '../plan/report.js'
import { runPlan, succeeded } from '../plan/runner.js'
import type { Plan } from '../context.js'
import type { Report } from '../plan/step.js'
import { planUp } from '../up.js'
import { lacks, type Provider } from '../provider/provider.js'
import { cleanName, exerciseMark, fits, hasSnapshot, refuseHalfRestored, takeSnapshot } from '../snapshot.js'
import { existsSync } from 'node:fs'
import type { Session } from '../session.js'
import type { Preparation } from '../parts/preparation.js'
import { keepSecrets, pathsOf } from '../state.js'
import { maskKnown } from '../view/secrets.js'
import { loggedInCheck } from '../steps/lun-use.js'
import { nodeVersionCheck } from '../steps/nodes.js'
import { fileOptions } from '../steps/machines.js'
import type { View } from '../view/view.js'
import { printFailures } from './fail.js'
import { printJson } from './json.js'
import { labOnHosts } from './lab-on-hosts.js'
import { keepManifests, readLab, rememberLab } from './kept-lab.js'
import { providerForUp, rememberProvider } from './provider-in-use.js'
import { writeAccess } from './ssh-config.js'
import type { Io, Options } from './verb.js'
import { healFirst, withLab } from './with-lab.js'

/**
 * Stops before anything is made and reports every problem. A problem that may turn out harmless becomes a question,
 * which somebody has to answer with yes.
 */
const refuseProblems = async (
  lab: Lab,
  provider: Provider,
  options: Options,
  io: Io,
  view: View,
): Promise<void> => {
  const problems = await provider.preflight(lab)
  if (problems.every(({ may }) => may)) {
    for (const { problem } of problems) view.notice(problem)
    if (problems.length === 0 || options.yes || (await io.ask?.('Bring it up all the same?'))) return
  }
  throw new LabError('preflight', problems.map(({ problem }) => problem).join('\n'), {
    hint: problems.map(({ hint }) => hint).join('\n'),
    exitCode: exitCodes.host,
  })
}

/** The machines that exist but are no longer in the lab file. */
const goneFrom = async (lab: Lab, provider: Provider): Promise<readonly string[]> =>
  (await provider.states(lab))
    .map(({ name }) => name)
    .filter((name) => !lab.machines.some((machine) => machine.name === name))

export const planFor = async (lab: Lab, provider: Provider): Promise<Plan> =>
  planUp(lab, provider, await fileOptions(lab, provider), await goneFrom(lab, provider))

/** The next steps, in the order in which a new user needs them. */
const summary = (lab: Lab, report: Report): string => {
  const width = Math.max(...lab.machines.map(({ name }) => name.length))
  const saw = (id: string): string =>
    report.results.flatMap(({ checks }) => checks).find(({ check }) => check.id === id)?.saw ?? ''
  const worker = machinesWith(lab, 'worker')[0]
  const node = nodesOf(lab)[0]
  return [
    '',
    `${lab.name} is up (${report.seconds.toFixed(1)} s).`,
    '',
    'Machines',
    ...lab.machines.map(
      ({ name, role, address }) => `  ${name.padEnd(width)}  ${address.padEnd(15)}  ${role}`,
    ),
    '',
    ...(lab.targets.length > 0 ? ['iSCSI'] : []),
    ...lab.targets.flatMap((target) =>
      target.luns.map(
        ({ lun, size }) =>
          `  LUN ${String(lun)}, ${sizeText(size).replace(/(?=[KMGT]iB)/, ' ')}, at ${portalOf(lab, target)}, ${target.iqn}`,
      ),
    ),
    ...lab.filesystems.map(({ initiator }) => `  logged in: ${initiator}, with ext4 on it`),
    ...(lab.database?.volume.kind === 'lun' ? [`  logged in: ${saw(loggedInCheck)}`] : []),
    ...(lab.kubernetes
      ? [
          ...(lab.targets.length > 0 ? [''] : []),
          'Kubernetes',
          ...nodesOf(lab).map(({ name }) => `  ${name.padEnd(width)}  ${saw(nodeVersionCheck(name))}`),
        ]
      : []),
    ...(lab.database
      ? [
          '',
          'Database',
          `  inside    ${lab.database.name}:3306`,
          `  outside   ${worker?.address ?? ''}:${String(lab.database.nodePort)}, in the lab's network; from this host: lab forward ${lab.name} ${worker?.name ?? ''}:${String(lab.database.nodePort)}`,
          `  user      ${lab.database.user}, database ${lab.database.database}`,
        ]
      : []),
    ...(lab.storage.length > 0
      ? [
          '',
          'Storage classes',
          ...lab.storage.map(
            (storage) =>
              `  ${storage.class.padEnd(width)}  ${storage.kind === 'nfs' ? `on ${nfsServerOf(lab)?.name ?? ''}, from every node` : 'on the node of its pod'}${storage.default ? ', the default' : ''}`,
          ),
        ]
      : []),
    ...(lab.workloads.length > 0
      ? ['', 'Workloads', ...lab.workloads.flatMap(({ ready }) => ready.map((what) => `  ${what}`))]
      : []),
    '',
    'Try next',
    ...(node
      ? [
          `  lab kubectl ${lab.name} -- get pods -o wide`,
          `  lab ssh ${lab.name} ${worker?.name ?? node.name}`,
        ]
      : [`  lab ssh ${lab.name} ${lab.machines[0]?.name ?? ''}`, `  lab exec ${lab.name} all -- uptime`]),
    ...lab.experiments.slice(0, 1).map(({ name }) => `  lab run ${lab.name} ${name}`),
    `  lab verify ${lab.name}`,
    '',
  ].join('\n')
}

/** @param agree asked before something large is built; absent: the user has already asked for it */
export const prepareProvider = async (
  lab: Lab,
  provider: Provider,
  io: Io,
  view: View,
  options: Options,
  agree?: Preparation['agree'],
): Promise<void> => {
  const preparation: Preparation = {
    ...(agree ? { agree } : {}),
    signal: io.signal,
    notice: (text) => view.notice(text),
    progress: (part) => view.part(part),
  }
  if (options.from !== undefined || options.offline) {
    const { takeFromBundle } = await import('./bundle-parts.js')
    await takeFromBundle(lab, provider, options, io, preparation)
  }
  await provider.prepare(lab, preparation)
}

/** Returns the exit code of a run, and prints its report if requested as JSON. */
export const concluded = (report: Report): ExitCode =>
  report.interrupted ? exitCodes.interrupted : succeeded(report) ? exitCodes.ok : exitCodes.failed

/**
 * Keeps a snapshot of the lab as its file says, for a reset: where machines were made, or the file has changed since
 * the last one. A lab that was only repaired keeps the one it has, which nobody has worked on.
 */
const keepClean = async (session: Session, report: Report, view: View): Promise<void> => {
  const { lab, provider } = session
  const why = lacks(provider, 'snapshots') ?? lacks(provider, 'pause')
  if (why !== undefined || report.results.every(({ outcome }) => outcome !== 'changed')) return
  if (await fits(lab, cleanName)) return
  // A learner whose exercise changes the lab file goes back to what it was before.
  if (existsSync(exerciseMark(lab)) && (await hasSnapshot(lab, cleanName))) return
  try {
    await takeSnapshot(session, cleanName, { replace: true })
  } catch (error) {
    if (session.signal.aborted || !(error instanceof LabError)) throw error
    view.notice(`no snapshot called ${cleanName} was kept: ${error.message}`)
  }
}

/** Brings a lab up, updates it to its file, or reports that nothing is left to do. */
export const bringUp = async (
  nameOrPath: string,
  options: Options,
  io: Io,
  title = 'up',
): Promise<ExitCode> => {
  const read = await readLab(nameOrPath, 'file')
  const { lab: written } = read
  return withLab(written, { io, options, lock: title, keepEvents: true }, async ({ view, open }) => {
    const lab = await labOnHosts(written, options, io, view)
    const provider = await providerForUp(lab, options, io.signal)
    await refuseProblems(lab, provider, options, io, view)
    await prepareProvider(lab, provider, io, view, options, async (question) =>
      options.yes ? 'yes' : io.ask ? ((await io.ask(question)) ? 'yes' : 'no') : 'nobody',
    )
    await refuseHalfRestored(lab)
    await rememberLab(read)
    await keepManifests(lab)
    await rememberProvider(lab, provider)
    await keepSecrets(pathsOf(lab))
    await writeAccess(lab, provider)
    const session = await open(lab, provider)
    await healFirst(session, view)
    const plan = await planFor(lab, provider)
    for (const line of leftOutLines(plan)) view.notice(line)
    const report = await runPlan(plan, 'apply', session, (event) => view.event(event))
    // This undo needs the lab to be up: only an API server can uncordon a node.
    await healFirst(session, view)
    if (title === 'up' && succeeded(report)) await keepClean(session, report, view)
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.report/v1', reportJson(report, maskKnown))
    else if (options.events) {
      // The events contain everything, and they own standard output.
    } else if (succeeded(report)) {
      const changed = report.results.filter(({ outcome }) => outcome === 'changed').length
      if (changed === 0)
        io.stdout.write(`${lab.name} is up already: nothing to do (${report.seconds.toFixed(1)} s).\n`)
      else io.stdout.write(summary(lab, report))
    } else {
      printFailures(lab, report, io)
    }
    return concluded(report)
  })
}
