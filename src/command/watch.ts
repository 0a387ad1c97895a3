import { Option } from 'commander'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ExitCode } from '../error.js'
import { readJournal } from '../journal.js'
import { registry } from '../registry.js'
import { exitCodeOf } from '../report/exit-code.js'
import { runFiles, saveRun, startRun } from '../report/folder.js'
import { measureHost } from '../report/host.js'
import { pruneRuns } from '../report/prune.js'
import { runReport } from '../report/run.js'
import type { RunReport } from '../report/schema.js'
import { shortReport } from '../report/summary.js'
import { pathsOf } from '../state.js'
import { claimChange } from '../trial/by-hand.js'
import { type ExerciseContext, runExercise } from '../trial/exercise.js'
import type { Facts } from '../trial/facts.js'
import { planNow } from '../up.js'
import { maskKnown } from '../view/secrets.js'
import type { View } from '../view/view.js'
import { printJson } from '../command-line/json.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { versionsOf } from '../lifecycle/versions.js'
import { asJson, type Io, type Options, type Verb, withEvents } from '../command-line/verb.js'
import { withLab } from '../command-line/with-lab.js'

/** Milliseconds between two checks for changes made by a person. */
const pause = 250

/**
 * What a person has changed, according to the journal and the provider: in words that stay the same as long as it
 * does.
 */
const actsIn = async ({ context: { lab, provider }, watch }: ExerciseContext): Promise<readonly string[]> => {
  const [journal, states] = await Promise.all([readJournal(lab), provider.states(lab)])
  return [
    ...journal
      .filter(({ kind }) => kind !== 'fence')
      .map(({ fault, undo, by }) => `${fault} on ${undo.machine}, by ${by}`),
    ...states
      .filter(({ status, paused }) => status !== 'running' || paused === true)
      .map(({ name, paused }) => `${name} is ${paused === true ? 'paused' : 'off'}`),
    ...(watch?.observations ?? [])
      .filter(({ type }) => type === 'node-not-ready' || type === 'pod-evicted')
      .map(({ detail }) => detail),
  ]
}

/**
 * Records until the person presses Ctrl-C.
 * @returns what was seen to change
 */
const untilEnough = async (
  exercise: ExerciseContext,
  view: View,
  signal: AbortSignal,
): Promise<readonly string[]> => {
  const before = new Set(await actsIn(exercise))
  const known = new Set(before)
  while (!signal.aborted) {
    for (const act of await actsIn(exercise)) {
      if (known.has(act)) continue
      known.add(act)
      view.notice(act)
      await exercise.acted(act)
    }
    await delay(pause, undefined, { signal }).catch(() => undefined)
  }
  return [...known].filter((act) => !before.has(act))
}

const run = async (
  nameOrPath: string,
  options: Options & { readonly keep?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const provider = await providerOf(lab)
  const host = await measureHost()
  const reportOf = (facts: Facts): RunReport => runReport({ ...facts, host }, maskKnown)
  // Without the lock: a person who changes the lab needs it, with `lab power` for instance.
  return withLab(lab, { io, options, keepEvents: true }, async ({ view, open, hold }) => {
    const session = await open(lab, provider, new AbortController().signal)
    const plan = await planNow(lab, provider)
    const place = await startRun(pathsOf(lab).runs, 'watch', new Date())
    const facts = await runExercise({
      registry,
      context: session,
      healer: session,
      plan,
      versions: await versionsOf(session),
      ledgerPath: join(place, runFiles.ledger),
      notice: (text) => view.notice(`watch: ${text}`),
      event: (event) => view.trial(event),
      save: (now) => saveRun(place, [reportOf(now)]),
      verb: 'watch',
      exercise: {
        name: 'watch',
        description: 'Changes made by hand, and their effect on the lab',
        record: lab.database !== undefined,
        repair: options.keep ? 'person' : 'lab',
        run: async (exercise) => {
          view.notice('recording: work in another terminal; press Ctrl-C when you have seen enough')
          const acts = await untilEnough(exercise, view, io.signal)
          await claimChange(exercise, plan, acts)
          await hold('watch')
        },
      },
    })
    const report = reportOf(facts)
    await pruneRuns(pathsOf(lab).runs)
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.runs/v1', { runs: [report] })
    else io.stdout.write(`${shortReport(report)}report: ${join(place, runFiles.page)}\n`)
    return exitCodeOf([report])
  })
}

export const verb: Verb = {
  options: [
    new Option('--keep', 'do not repair the lab afterwards: that is the task of the person who broke it'),
    asJson,
    withEvents,
  ],
  run,
}
