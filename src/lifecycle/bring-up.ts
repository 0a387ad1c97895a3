/** Everything that brings a lab up, in order: nothing is made before the preflight has passed. */
import { existsSync } from 'node:fs'
import { exitCodes, LabError } from '../error.js'
import { readJournal } from '../journal.js'
import { type Lab, pairsOf } from '../lab/lab.js'
import type { LabText } from '../lab/load.js'
import type { Agreement, PartProgress } from '../parts/preparation.js'
import type { Plan } from '../context.js'
import { leftOutLines } from '../plan/plan.js'
import { runPlan, succeeded } from '../plan/runner.js'
import { together } from '../plan/together.js'
import type { Report, RunEvent } from '../plan/step.js'
import { lacks, lacksSsh, lacksSwitches, type Provider } from '../provider/provider.js'
import type { Session } from '../session.js'
import { cleanName, exerciseMark, fits, hasSnapshot, refuseHalfRestored } from '../snapshot/snapshot.js'
import { takeSnapshot } from '../snapshot/take.js'
import { keepSecrets, pathsOf } from '../state.js'
import { planNow } from '../up.js'
import { writeAccess } from './access.js'
import { healFirst, refuseUndone } from './heal.js'
import { refuseToLoseQuorum } from './leaving-members.js'
import { keepManifests, rememberLab } from './load-lab.js'
import { type PartsSource, prepareParts } from './parts.js'
import { rememberProvider } from './provider-in-use.js'

/** Shows progress and asks questions. */
export interface Audience {
  readonly signal: AbortSignal
  /** Asks for consent to something that may be harmless, or takes long. */
  readonly agree: (question: string) => Promise<Agreement>
  readonly notice: (text: string) => void
  readonly part: (progress: PartProgress) => void
  readonly event: (event: RunEvent) => void
}

/**
 * Stops before anything is made and reports every problem. A problem that may be harmless needs the user's consent.
 */
const refuseProblems = async (lab: Lab, provider: Provider, { agree, notice }: Audience): Promise<void> => {
  const switches = pairsOf(lab).length > 0 ? lacksSwitches(provider) : undefined
  if (switches !== undefined)
    throw new LabError(
      'not-offered',
      `two machines that serve one target switch each other off before a takeover: ${switches}`,
      { hint: `lab up ${lab.name} --provider uml`, exitCode: exitCodes.host },
    )
  const problems = await provider.preflight(lab)
  if (problems.every(({ may }) => may)) {
    for (const { problem } of problems) notice(problem)
    if (problems.length === 0 || (await agree('Bring it up anyway?')) === 'yes') return
  }
  throw new LabError('preflight', problems.map(({ problem }) => problem).join('\n'), {
    hint: problems.map(({ hint }) => hint).join('\n'),
    exitCode: exitCodes.host,
  })
}

/**
 * Saves a snapshot of the lab as its file says, for a reset: if machines were made, or the file has changed since the
 * last one. A lab that was only repaired keeps its snapshot, because that one is unused.
 */
const keepClean = async (session: Session, report: Report, notice: (text: string) => void): Promise<void> => {
  const { lab, provider } = session
  const why = lacks(provider, 'snapshots') ?? lacks(provider, 'pause')
  if (why !== undefined || report.results.every(({ outcome }) => outcome !== 'changed')) return
  if (await fits(lab, cleanName)) return
  // A learner whose exercise changes the lab file goes back to the file from before.
  if (existsSync(exerciseMark(lab)) && hasSnapshot(lab, cleanName)) return
  try {
    await takeSnapshot(session, cleanName, { replace: true })
  } catch (error) {
    if (session.signal.aborted || !(error instanceof LabError)) throw error
    notice(`no snapshot called ${cleanName} was kept: ${error.message}`)
  }
}

/** The lab's folder: what later commands know of the lab, whatever happens to its file. */
const remember = async (read: LabText, lab: Lab, provider: Provider): Promise<void> => {
  await rememberLab(read)
  await keepManifests(lab)
  await rememberProvider(lab, provider)
  await keepSecrets(pathsOf(lab))
  if (lacksSsh(provider) === undefined) await writeAccess(lab, provider)
}

/**
 * Waits until everything that a run has changed holds at one moment, and adds this to its report. It comes last: a
 * heal and a snapshot, which pauses the machines, disturb a lab, too.
 */
export const confirmed = async (
  report: Report,
  plan: Plan,
  session: Session,
  event: (event: RunEvent) => void,
): Promise<Report> => {
  if (!succeeded(report) || report.results.every(({ outcome }) => outcome !== 'changed')) return report
  const { name } = session.lab
  const whole = await runPlan(
    together(plan, `Check ${name} as a whole`, `lab verify ${name}`),
    'apply',
    session,
    event,
  )
  return {
    ...report,
    seconds: report.seconds + whole.seconds,
    interrupted: whole.interrupted,
    results: [...report.results, ...whole.results],
  }
}

/** A lab that should be brought up. */
export interface Wanted {
  readonly lab: Lab
  /** The lab as its file says, and the text of the file. */
  readonly read: LabText
  readonly provider: Provider
  readonly source: PartsSource
  /** Whether to save a snapshot of the new lab, for a reset. */
  readonly keepClean: boolean
}

/**
 * Brings a lab up, updates it to its file, or finds that nothing is left to do. The caller holds its lock.
 * @param open a session with its machines, which the caller closes
 */
export const bringUp = async (
  { lab, read, provider, source, keepClean: snapshot }: Wanted,
  audience: Audience,
  open: (lab: Lab, provider: Provider) => Promise<Session>,
): Promise<Report> => {
  const { signal, agree, notice, part, event } = audience
  await refuseProblems(lab, provider, audience)
  // Before the parts, which may take long.
  await refuseToLoseQuorum(lab, provider)
  await refuseHalfRestored(lab)
  await readJournal(lab)
  await prepareParts(lab, provider, source, { signal, agree, notice, progress: part })
  await remember(read, lab, provider)
  const session = await open(lab, provider)
  await healFirst(session, notice)
  const plan = await planNow(lab, provider)
  for (const line of leftOutLines(plan)) notice(line)
  const report = await runPlan(plan, 'apply', session, event)
  // This undo needs the lab to be up: only an API server can uncordon a node.
  await healFirst(session, notice)
  // The report of a failed plan says more.
  if (succeeded(report)) await refuseUndone(lab)
  if (snapshot && succeeded(report)) await keepClean(session, report, notice)
  return confirmed(report, plan, session, event)
}
