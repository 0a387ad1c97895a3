/** Exercises on disk: every mistake of an author is reported with its file, line and column. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { exitCodes, LabError } from '../error.js'
import type { Path, Problem } from '../lab/draft.js'
import { pathText } from '../lab/draft.js'
import { explain } from '../lab/explain.js'
import type { Lab } from '../lab/lab.js'
import { roles } from '../lab/lab.js'
import { LabFileError, type LabFileProblem } from '../lab/parse.js'
import { readSource } from '../lab/source.js'
import { didYouMean } from '../lab/suggest.js'
import { projectRoot } from '../package.js'
import { type CheckSpec, checksOf, type ExerciseSpec, exerciseSchema, type StepSpec } from './schema.js'
import { type Language, languages, readWords, type Words } from './words.js'

export interface Exercise extends ExerciseSpec {
  readonly name: string
  /** Absolute path of its exercise.yaml. */
  readonly file: string
  readonly words: Readonly<Record<Language, Words>>
}

/** The fields that a claim needs. */
const claimNeeds: Readonly<Record<string, readonly string[]>> = {
  'stayed-within': ['ready', 'there'],
  reached: ['ready', 'there'],
  made: ['count'],
  'started-in-order': ['order'],
  'ended-in-order': ['order'],
  'updated-in-order': ['order', 'image'],
  'started-together': ['order'],
  'ended-together': ['order'],
}

/** The exercises of a lab are in the folder `learn` next to its file. */
export const exercisesFolder = (nameOrPath: string): string =>
  /[/]|\.ya?ml$/i.test(nameOrPath) ? join(dirname(nameOrPath), 'learn') : join(projectRoot, 'labs', 'learn')

/** An exercise, and what it may name. */
interface Draft {
  readonly spec: ExerciseSpec
  readonly lab: Lab
  /** Ids of the checks of `lab verify`. */
  readonly checks: readonly string[]
}

function* machineProblems({ lab }: Draft, word: string, path: Path): Generator<Problem> {
  const machines = lab.machines.map(({ name }) => name)
  const held = roles.filter((role) => lab.machines.some((machine) => machine.role === role))
  const words = [...machines, ...held, ...(lab.database ? ['database', 'standby'] : [])]
  if (!words.includes(word))
    yield { path, message: `${lab.name} has no machine ${word}${didYouMean(word, words)}` }
}

function* checkProblems(draft: Draft, check: CheckSpec, path: Path): Generator<Problem> {
  const { spec, lab, checks } = draft
  for (const [index, one] of checksOf(check).entries()) {
    const at: Path = index === 0 ? path : [...path, 'and', index - 1]
    if (Array.isArray(one.verify))
      for (const [place, id] of one.verify.entries())
        if (!checks.includes(id))
          yield {
            path: [...at, 'verify', place],
            message: `lab verify ${lab.name} has no check ${id}${didYouMean(id, checks)}`,
          }
    if (one.run) yield* machineProblems(draft, one.run.on, [...at, 'run', 'on'])
    if (one.state) yield* machineProblems(draft, one.state.machine, [...at, 'state', 'machine'])
    if (one.fault) yield* machineProblems(draft, one.fault.machine, [...at, 'fault', 'machine'])
    if (one.kubectl && !lab.kubernetes)
      yield { path: [...at, 'kubectl'], message: `${lab.name} has no Kubernetes` }
    if (one.claim) {
      if (!lab.kubernetes) yield { path: [...at, 'claim'], message: `${lab.name} has no Kubernetes` }
      for (const needed of claimNeeds[one.claim.is] ?? [])
        if (one.claim[needed as 'order'] === undefined)
          yield { path: [...at, 'claim'], message: `${one.claim.is} needs ${needed}` }
    }
    if (one.ledger && !spec.ledger)
      yield { path: [...at, 'ledger'], message: 'the exercise writes no ledger; add ledger: database' }
  }
}

/** @param index the step's position */
function* questionProblems(
  draft: Draft,
  ask: NonNullable<StepSpec['ask']>,
  index: number,
): Generator<Problem> {
  const { spec } = draft
  const path: Path = ['steps', index, 'ask']
  if (ask.for === 'choice' && !ask.choices) yield { path, message: 'asks for a choice but has no choices' }
  if (ask.truth === undefined && ask.example === undefined)
    yield { path, message: 'has no truth, and no example for the tests' }
  if (ask.truth?.run) yield* machineProblems(draft, ask.truth.run.on, [...path, 'truth', 'run', 'on'])
  if (ask.truth?.ledger && !spec.ledger)
    yield { path: [...path, 'truth'], message: 'the exercise writes no ledger; add ledger: database' }
  const draws = spec.steps.slice(0, index + 1).flatMap(({ draw = [] }) => draw.map(({ id }) => id))
  if (ask.truth?.drawn && draws.length === 0)
    yield { path: [...path, 'truth'], message: 'no earlier step draws anything' }
}

/** @param index the step's position */
function* stepProblems(draft: Draft, step: StepSpec, index: number): Generator<Problem> {
  const path: Path = ['steps', index]
  const ids = draft.spec.steps.map(({ id }) => id)
  if (ids.indexOf(step.id) !== index) yield { path: [...path, 'id'], message: `${step.id} appears twice` }
  if ((step.check === undefined) === (step.ask === undefined))
    yield {
      path: [...path, 'id'],
      message: `${step.id} has ${step.check ? 'both a check and a question' : 'no check and no question'}; it must have exactly one of them`,
    }
  if (step.check) {
    yield* checkProblems(draft, step.check, [...path, 'check'])
    if (step.solution === undefined && !step.draw?.every(({ solution }) => solution !== undefined))
      yield { path: [...path, 'id'], message: `${step.id} has no solution` }
  }
  for (const needed of step.needs)
    if (!ids.slice(0, index).includes(needed))
      yield { path: [...path, 'needs'], message: `${needed} is not a step before ${step.id}` }
  for (const [place, { when }] of step.hints.entries())
    if (when) yield* checkProblems(draft, when, [...path, 'hints', place, 'when'])
  if (step.check && !step.hints.some(({ when }) => when === undefined))
    yield {
      path: [...path, 'id'],
      message: `${step.id} has no hint without when; add one for learners who have not done anything yet`,
    }
  if (step.ask) yield* questionProblems(draft, step.ask, index)
}

/** The wrong attempts, each of which belongs to a step and gets one of its hints. */
function* wrongProblems({ spec }: Draft): Generator<Problem> {
  const ids = spec.steps.map(({ id }) => id)
  for (const [index, wrong] of spec.wrong.entries()) {
    const path: Path = ['wrong', index]
    const step = spec.steps.find(({ id }) => id === wrong.at)
    if (!step)
      yield { path: [...path, 'at'], message: `${wrong.at} is not a step${didYouMean(wrong.at, ids)}` }
    else if (!step.hints.some(({ say }) => say === wrong.hint))
      yield { path: [...path, 'hint'], message: `${wrong.hint} is not a hint of the step ${wrong.at}` }
    if (step && (step.ask === undefined ? wrong.run : wrong.answer) === undefined)
      yield {
        path: [...path, 'at'],
        message: step.ask ? 'expected a wrong answer' : 'expected run: the wrong commands',
      }
  }
}

/** What no schema can find, because it is about several places, or about the lab. */
function* crossCheck(draft: Draft): Generator<Problem> {
  const { spec, lab } = draft
  if (spec.lab !== lab.name)
    yield { path: ['lab'], message: `is about ${spec.lab}, but this is the lab ${lab.name}` }
  if (spec.ledger && !lab.database) yield { path: ['ledger'], message: `${lab.name} has no database` }
  for (const [index, step] of spec.steps.entries()) yield* stepProblems(draft, step, index)
  for (const [index, { when }] of spec.broken.entries())
    yield* checkProblems(draft, when, ['broken', index, 'when'])
  yield* wrongProblems(draft)
}

/** Ids of all texts that do not belong to a step. */
const saidIn = (spec: ExerciseSpec): readonly string[] => [
  ...new Set([
    ...spec.steps.flatMap(({ hints, ask }) => [...hints.map(({ say }) => say), ...(ask?.choices ?? [])]),
    ...spec.broken.map(({ say }) => say),
  ]),
]

const textOf = (file: string): string | undefined => {
  if (!existsSync(file)) return undefined
  return readFileSync(file, 'utf8')
}

/** One exercise. @param checks ids of the checks of `lab verify` @throws LabFileError with all of its problems */
export const loadExercise = (folder: string, lab: Lab, checks: readonly string[]): Exercise => {
  const file = join(folder, 'exercise.yaml')
  const hint = 'docs/teaching.md explains how to write an exercise'
  const text = textOf(file)
  const fail = (problems: readonly LabFileProblem[], of = file): never => {
    throw new LabFileError(of, problems, hint)
  }
  if (text === undefined) return fail([{ field: '', message: 'there is no such file' }])
  const source = readSource(text)
  if (source.broken) return fail([{ field: '', ...source.broken }])
  const value = source.value()
  const parsed = exerciseSchema.safeParse(value)
  const problems: Problem[] = parsed.success
    ? [...crossCheck({ spec: parsed.data, lab, checks })]
    : parsed.error.issues
        // A check with an unknown field lacks a known one as well: that is one mistake.
        .filter(
          ({ code, path }, _, all) =>
            code !== 'custom' ||
            !all.some((other) => other.code === 'unrecognized_keys' && other.path.join() === path.join()),
        )
        .flatMap((issue) => explain(exerciseSchema, issue, value, source))
  const placed = [
    ...source.problems.map((problem) => ({ field: '', ...problem })),
    ...problems.map(({ path, message, atKey }) => ({
      ...source.place(path, atKey),
      field: pathText(path),
      message,
    })),
  ].sort((a, b) => a.line - b.line || a.column - b.column)
  if (!parsed.success || placed.length > 0) return fail(placed)
  const spec = parsed.data
  const read = (language: Language): Words => {
    const path = join(folder, `${language}.md`)
    const markdown = textOf(path)
    if (markdown === undefined)
      return fail(
        [
          {
            field: '',
            message: `there is no such file: an exercise has its words in ${languages.join(' and ')}`,
          },
        ],
        path,
      )
    const found = readWords(
      markdown,
      spec.steps.map(({ id }) => id),
      saidIn(spec),
    )
    if (found.problems.length > 0)
      return fail(
        found.problems.map(({ line, message }) => ({
          ...(line === undefined ? {} : { line, column: 1 }),
          field: '',
          message,
        })),
        path,
      )
    return found.words
  }
  return {
    ...spec,
    name: folder.split('/').at(-1) ?? '',
    file,
    words: { en: read('en'), ja: read('ja') },
  }
}

/** The lab that an exercise names; undefined if its file cannot be read that far. */
const labOf = (folder: string): string | undefined =>
  /^lab:\s*([a-z0-9-]+)/m.exec(textOf(join(folder, 'exercise.yaml')) ?? '')?.[1]

/** The folders of the exercises for a lab, by name. */
export const exerciseFolders = (folder: string, lab: string): readonly string[] =>
  existsSync(folder)
    ? readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isDirectory() && labOf(join(folder, entry.name)) === lab)
        .map((entry) => join(folder, entry.name))
        .sort()
    : []

/** @throws LabError with the existing exercises, if this one is not among them */
export const folderOfExercise = (folder: string, lab: string, name: string): string => {
  const folders = exerciseFolders(folder, lab)
  const names = folders.map((each) => each.split('/').at(-1) ?? '')
  const found = folders[names.indexOf(name)]
  if (found !== undefined) return found
  throw new LabError('no-exercise', `${lab} has no exercise ${name}${didYouMean(name, names)}`, {
    hint: names.length === 0 ? `write one: docs/teaching.md explains how` : `there are: ${names.join(', ')}`,
    exitCode: exitCodes.usage,
  })
}
