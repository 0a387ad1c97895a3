import { planNow } from '../up.js'
import { Option } from 'commander'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exitCodes, type ExitCode, LabError, messageOf } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { openDesk } from '../learn/learner-shell.js'
import { Attempt, type Surroundings } from '../learn/attempt.js'
import { learnAtTerminal } from '../learn/terminal.js'
import {
  type Exercise,
  exerciseFolders,
  exercisesFolder,
  folderOfExercise,
  loadExercise,
} from '../learn/load.js'
import { type Ledger, openLedger } from '../learn/ledger.js'
import { readProgress, standingIn } from '../learn/progress.js'
import { prove, type Proof, proofsJunit, seedsFor } from '../learn/prove.js'
import { checksOf } from '../learn/schema.js'
import { languages, type Language } from '../learn/words.js'
import { quote } from '../machine/sh.js'
import { groupOf } from '../provider/provider.js'
import type { Session } from '../session.js'
import { cleanName, exerciseMark, snapshotsOf } from '../snapshot/snapshot.js'
import { pathsOf, writePrivate } from '../state.js'
import { PodHistory, type PodObject } from '../trial/history.js'
import { loadLab, loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import type { Io, Options, Verb } from '../command-line/verb.js'
import { withLab } from '../command-line/with-lab.js'

interface LearnOptions extends Options {
  readonly lang: Language
  readonly plain?: boolean
  readonly list?: boolean
  readonly test?: boolean
  readonly junit?: string
  readonly seed?: string
}

/** The namespaces of the pods that the exercise's claims are about. */
const namespacesOf = (exercise: Exercise): readonly string[] => [
  ...new Set(
    exercise.steps.flatMap(({ check }) =>
      check ? checksOf(check).flatMap(({ claim }) => (claim ? [claim.namespace] : [])) : [],
    ),
  ),
]

/** Everything that an attempt works with, while `body` runs. */
const withSurroundings = async <T>(
  session: Session,
  exercise: Exercise,
  body: (around: Surroundings) => Promise<T>,
  { forTests = false }: { readonly forTests?: boolean } = {},
): Promise<T> => {
  const { lab, provider, signal, kubectl } = session
  const ending = new AbortController()
  const until = AbortSignal.any([signal, ending.signal])
  const desk = await openDesk(signal)
  const plan = await planNow(lab, provider)
  const mark = exerciseMark(lab)
  await writePrivate(mark, `${exercise.name}\n`)
  const begun = performance.now()
  const clock = (): number => performance.now() - begun
  const histories = new Map(namespacesOf(exercise).map((name) => [name, new PodHistory()]))
  try {
    for (const [namespace, history] of histories)
      await kubectl.follow(
        `/api/v1/namespaces/${namespace}/pods`,
        ({ type, object }) => {
          if (type === 'ADDED' || type === 'MODIFIED' || type === 'DELETED')
            history.take(clock(), type, object as unknown as PodObject)
        },
        until,
        {
          lost: (reason) => (history.blind = `pods are not seen: ${messageOf(reason)}`),
          back: () => (history.blind = undefined),
          missed: (reason) => history.miss(clock(), `changes of pods were missed: ${messageOf(reason)}`),
        },
      )
    const open = async (): Promise<Ledger | undefined> =>
      exercise.ledger && lab.database ? openLedger(session, lab.database) : undefined
    // Tests begin with a reset, which opens it: the database of a lab that is to be reset may not answer.
    let ledger = forTests ? undefined : await open()
    try {
      return await body({
        context: session,
        plan,
        histories,
        clock,
        get ledger() {
          return ledger
        },
        type: (commands) => desk.type(commands),
        reset: async () => {
          // Its rows go with the disks. Afterwards a new one begins.
          await ledger?.close()
          ledger = undefined
          const { exitCode, out } = await desk.type(`lab restore ${quote(lab.name)} ${cleanName} --wait`)
          if (exitCode !== 0)
            throw new LabError('not-restored', `the lab could not be restored: ${out.slice(-600)}`, {
              hint: `lab restore ${lab.name} ${cleanName}`,
            })
          ledger = await open()
        },
      })
    } finally {
      await ledger?.close()
    }
  } finally {
    ending.abort()
    await desk.close()
  }
}

/** @throws LabError if an exercise could not be reset */
const refuseWithoutClean = async (lab: Lab): Promise<void> => {
  if ((await snapshotsOf(lab)).some(({ name }) => name === cleanName)) return
  throw new LabError('no-clean', `${lab.name} has no snapshot called ${cleanName} to go back to`, {
    hint: `lab up ${lab.name}, then lab snapshot ${lab.name} ${cleanName}`,
  })
}

const listExercises = async (
  lab: Lab,
  exercises: readonly Exercise[],
  { lang }: LearnOptions,
  io: Io,
): Promise<void> => {
  const events = await readProgress(lab)
  const width = Math.max(...exercises.map(({ name }) => name.length))
  for (const exercise of exercises) {
    const { done } = standingIn(events, exercise.name)
    io.stdout.write(
      `${exercise.name.padEnd(width)}  ${String(done.size)}/${String(exercise.steps.length)}  ${exercise.words[lang].title}\n`,
    )
  }
  io.stdout.write(`\nlab learn ${lab.name} ${exercises[0]?.name ?? ''}\n`)
}

const testAll = async (
  session: Session,
  exercises: readonly Exercise[],
  { junit, seed }: LearnOptions,
  io: Io,
): Promise<ExitCode> => {
  const { lab } = session
  const proofs: Proof[] = []
  const told = ({ exercise, step, title, outcome, saw, seconds }: Proof): void => {
    const mark = { passed: '✔', failed: '✖', 'not reached': '-' }[outcome]
    io.stdout.write(
      `${mark} ${exercise}: ${step}: ${title} (${seconds.toFixed(1)} s)${outcome === 'failed' ? `\n    saw: ${saw}` : ''}\n`,
    )
  }
  for (const exercise of exercises)
    await withSurroundings(
      session,
      exercise,
      async (around) => {
        const seeds = seed === undefined ? await seedsFor(exercise, around) : [Number(seed)]
        for (const each of seeds) proofs.push(...(await prove(exercise, around, each, told)))
        await rm(exerciseMark(lab), { force: true })
      },
      { forTests: true },
    )
  const file = junit ?? join(pathsOf(lab).learn, 'junit.xml')
  await writeFile(file, proofsJunit(proofs), { mode: 0o600 })
  const count = (outcome: Proof['outcome']): string =>
    String(proofs.filter((one) => one.outcome === outcome).length)
  io.stdout.write(
    `${String(exercises.length)} exercises: ${count('passed')} passed, ${count('failed')} failed, ${count('not reached')} not reached. JUnit: ${file}\n`,
  )
  return proofs.every(({ outcome }) => outcome === 'passed') ? exitCodes.ok : exitCodes.failed
}

const run = async (
  nameOrPath: string,
  name: string | undefined,
  options: LearnOptions,
  io: Io,
): Promise<ExitCode> => {
  const folder = exercisesFolder(nameOrPath)
  const read = await loadLab(nameOrPath)
  const provider = await providerOf(read)
  const lab = await loadRunning(read.name)
  groupOf(provider, 'snapshots')
  const plan = await planNow(lab, provider)
  const checks = plan.steps.flatMap((step) => step.checks.map(({ id }) => id))
  const folders =
    name === undefined ? exerciseFolders(folder, lab.name) : [folderOfExercise(folder, lab.name, name)]
  const exercises = folders.map((each) => loadExercise(each, lab, checks))
  const [first] = exercises
  if (!first)
    throw new LabError('no-exercise', `${lab.name} has no exercises in ${folder}`, {
      hint: 'docs/teaching.md explains how to write one',
      exitCode: exitCodes.usage,
    })
  await refuseWithoutClean(lab)
  return withLab(lab, { io, options, keepEvents: false }, async ({ open }) => {
    const session = await open(lab, provider)
    if (options.test) return testAll(session, exercises, options, io)
    if (options.list || (name === undefined && exercises.length > 1)) {
      await listExercises(lab, exercises, options, io)
      return exitCodes.ok
    }
    return withSurroundings(session, first, async (around) => {
      const seed = options.seed === undefined ? undefined : Number(options.seed)
      const attempt = await Attempt.begin(first, around, seed)
      await learnAtTerminal(attempt, {
        input: io.stdin,
        output: io.stdout,
        language: options.lang,
        plain: options.plain === true || !io.stdout.isTTY || !io.stdin.isTTY,
        signal: io.signal,
      })
      if (attempt.next === undefined) await rm(exerciseMark(lab), { force: true })
      return exitCodes.ok
    })
  })
}

export const verb: Verb = {
  words: { exercise: 'its name; without it: a list, or the only exercise there is' },
  options: [
    new Option('--lang <language>', 'the language of the exercise')
      .choices(languages)
      .default((process.env['LANG'] ?? '').startsWith('ja') ? 'ja' : 'en'),
    new Option('--plain', 'plain lines, nothing drawn: for screen readers and pipes'),
    new Option('--list', 'the exercises of the lab, and how far each one is'),
    new Option('--test', 'test each exercise: its checks, solutions, wrong attempts and reset'),
    new Option('--junit <file>', 'where --test writes its results as JUnit'),
    new Option('--seed <number>', 'the number that decides what is drawn in secret'),
  ],
  run,
}
