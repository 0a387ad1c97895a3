/** What a learner sees, as lines of text: nothing depends on colour, and everything fits into 80 x 24. */
import type { Look } from './attempt.js'
import { cut, widthOf, wrapText } from './layout.js'
import type { Exercise } from './load.js'
import type { Standing } from './progress.js'
import type { StepSpec } from './schema.js'
import type { Language } from './words.js'

/** The texts of the program itself. */
export const interfaceWords = {
  en: {
    step: (number: number, of: number) => `step ${String(number)} of ${String(of)}`,
    awaited: 'Goal',
    seen: 'Now',
    yes: 'yes',
    'not yet': 'not yet',
    'could not ask': 'could not ask (not your mistake)',
    looking: 'looking…',
    holds: (held: string, wanted: string) => `yes, for ${held} s; it must hold for ${wanted} s`,
    hint: 'Hint',
    solution: 'Solution',
    done: 'Done',
    goOn: 'Enter: next step',
    noHint: 'There is no hint for this step.',
    noSolution: 'Only you know the answer: any answer is accepted.',
    keys: 'Keys, then Enter: h hint · s solution · a step again · r reset · l list · q quit',
    answer: 'Your answer',
    choices: 'One of',
    reset: 'The lab goes back to its snapshot, and everything that was done to it is lost. Type yes:',
    resetting: 'Restoring the lab…',
    notReset: 'The lab was not restored.',
    finished: (time: string, hints: number) =>
      `Finished after ${time}, with ${String(hints)} hints and solutions.`,
    noLonger: 'no longer holds',
    broken: 'The lab must be reset (r)',
    minutes: (minutes: number) => `about ${String(minutes)} minutes`,
    began: 'Type the commands of the lab in a second terminal.',
    drawing: 'Preparing the step…',
  },
  ja: {
    step: (number: number, of: number) => `ステップ ${String(number)}/${String(of)}`,
    awaited: '目標',
    seen: '現在',
    yes: '達成',
    'not yet': 'まだ',
    'could not ask': '確認できません (あなたの誤りではありません)',
    looking: '確認中…',
    holds: (held: string, wanted: string) => `達成 (${held} 秒継続中。${wanted} 秒続けば完了)`,
    hint: 'ヒント',
    solution: '解答例',
    done: '完了',
    goOn: 'Enter で次へ',
    noHint: 'このステップにヒントはありません。',
    noSolution: '正解はありません。予想を入力してください。',
    keys: 'キー + Enter: h ヒント · s 解答例 · a やり直し · r リセット · l 一覧 · q 終了',
    answer: '答え',
    choices: '選択肢',
    reset: 'ラボをスナップショットの状態に戻します。行った作業はすべて消えます。yes と入力:',
    resetting: 'ラボを元に戻しています…',
    notReset: 'ラボは元に戻していません。',
    finished: (time: string, hints: number) =>
      `所要時間 ${time}、ヒントと解答例は ${String(hints)} 回。お疲れさまでした。`,
    noLonger: '今は満たされていません',
    broken: 'リセットが必要です (r)',
    minutes: (minutes: number) => `目安 ${String(minutes)} 分`,
    began: '別の端末を開いて、そこでコマンドを実行してください。',
    drawing: 'ラボに何かを仕掛けています…',
  },
} as const

export type InterfaceWords = (typeof interfaceWords)[Language]

/** What is on the screen below the task. */
export interface Below {
  readonly kind: 'hint' | 'solution' | 'broken' | 'notice'
  readonly text: string
}

export interface View {
  readonly exercise: Exercise
  readonly language: Language
  readonly step: StepSpec
  readonly look: Look | undefined
  /** Seconds since the exercise was begun in this process. */
  readonly seconds: number
  readonly below: Below | undefined
  /** The line that is being typed. */
  readonly typed: string
}

const clockText = (seconds: number): string => {
  const whole = Math.floor(seconds)
  return `${String(Math.floor(whole / 60)).padStart(2, '0')}:${String(whole % 60).padStart(2, '0')}`
}

const said = (words: InterfaceWords, look: Look | undefined): string => {
  if (!look) return words.looking
  if (look.is === 'yes' && !look.done)
    return `${words.holds((look.held / 1000).toFixed(0), (look.wanted / 1000).toFixed(0))}: ${look.saw}`
  return `${words[look.is]}: ${look.saw}`
}

const belowTitle = (words: InterfaceWords, kind: Below['kind']): string =>
  kind === 'notice' ? '' : `${words[kind]}: `

/** The title line: the exercise on the left, the position and the time on the right. */
const header = (left: string, right: string, columns: number): string => {
  const room = columns - widthOf(right) - 2
  const shown = cut(left, room)
  return `${shown}${' '.repeat(Math.max(2, columns - widthOf(shown) - widthOf(right)))}${right}`
}

/** The screen of a step. If it is too long, the least important text is cut first: the evidence, then the hint. */
export const stepScreen = (
  { exercise, language, step, look, seconds, below, typed }: View,
  { columns, rows }: { readonly columns: number; readonly rows: number },
): readonly string[] => {
  const words = interfaceWords[language]
  const { title, steps } = exercise.words[language]
  const own = steps.get(step.id)
  const place = exercise.steps.indexOf(step) + 1
  const head = [
    header(
      `${exercise.lab} · ${title}`,
      `${words.step(place, exercise.steps.length)}  ${clockText(seconds)}`,
      columns,
    ),
    '─'.repeat(columns),
    `${String(place)}. ${own?.title ?? step.id}`,
    ...wrapText(own?.task ?? '', columns),
    '',
    ...wrapText(`${words.awaited}: ${own?.awaited ?? ''}`, columns),
  ]
  const foot = [
    ...(step.ask?.choices ? wrapText(`${words.choices}: ${step.ask.choices.join(', ')}`, columns) : []),
    cut(words.keys, columns),
    cut(`${step.ask ? `${words.answer} ` : ''}> ${typed}`, columns),
  ]
  const room = Math.max(2, rows - head.length - foot.length)
  const seen = wrapText(`${words.seen}: ${said(words, look)}`, columns)
  const text = look?.done
    ? [...wrapText(`✔ ${words.done}. ${own?.after ?? ''}`, columns), words.goOn]
    : below
      ? wrapText(`${belowTitle(words, below.kind)}${below.text}`, columns)
      : []
  const forSeen = Math.max(1, Math.min(seen.length, room - text.length))
  return [
    ...head,
    ...(seen.length > forSeen
      ? [...seen.slice(0, forSeen - 1), cut(`${seen[forSeen - 1] ?? ''} …`, columns)]
      : seen),
    ...text.slice(0, Math.max(1, room - forSeen)),
    ...foot,
  ]
}

/** All steps, with a mark that is a word as well. */
export const listLines = (
  exercise: Exercise,
  language: Language,
  standing: Standing,
  now: string | undefined,
): readonly string[] => {
  const words = interfaceWords[language]
  return exercise.steps.flatMap(({ id }, index) => {
    const mark = standing.done.has(id) ? '✔' : id === now ? '›' : ' '
    const again = standing.ever.has(id) && !standing.done.has(id) ? ` (${words.noLonger})` : ''
    const done = standing.done.has(id) ? ` (${words.done})` : ''
    const saw = standing.done.has(id) ? (standing.seen.get(id) ?? '') : ''
    return [
      `${mark} ${String(index + 1)}. ${exercise.words[language].steps.get(id)?.title ?? id}${done}${again}`,
      ...(saw === '' ? [] : [cut(`     ${saw}`, 76)]),
    ]
  })
}

/** The same as sentences, one per line, for people who hear it read: only what is new. */
export const spokenStep = ({
  exercise,
  language,
  step,
}: Pick<View, 'exercise' | 'language' | 'step'>): readonly string[] => {
  const words = interfaceWords[language]
  const own = exercise.words[language].steps.get(step.id)
  return [
    `${words.step(exercise.steps.indexOf(step) + 1, exercise.steps.length)}: ${own?.title ?? step.id}`,
    ...wrapText(own?.task ?? '', 80),
    ...wrapText(`${words.awaited}: ${own?.awaited ?? ''}`, 80),
    ...(step.ask?.choices ? [`${words.choices}: ${step.ask.choices.join(', ')}`] : []),
  ]
}

export const spokenLook = (language: Language, look: Look): string =>
  `${interfaceWords[language].seen}: ${said(interfaceWords[language], look)}`

export { clockText }
