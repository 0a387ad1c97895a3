/**
 * How a check of an exercise is asked of a real lab. There are three answers; the third is not the learner's mistake.
 */
import type { Context, Plan } from '../context.js'
import { commandFailed, LabError, messageOf, notThere, unlessAborted } from '../error.js'
import { readJournal } from '../journal.js'
import { durationText } from '../lab/units.js'
import { machinesAt } from '../lab/fault-machines.js'
import type { Verdict } from '../plan/step.js'
import * as claims from '../trial/claims.js'
import { everyPod, type PodHistory, type Which } from '../trial/history.js'
import type { Ledger } from './ledger.js'
import { type CheckSpec, checksOf, type OneCheck } from './schema.js'

export interface Answer {
  readonly is: 'yes' | 'not yet' | 'could not ask'
  /** Evidence on one line. */
  readonly saw: string
}

/** What checks need to be asked. */
export interface Asking {
  readonly context: Context
  readonly plan: Plan
  /** The worker that ran the database when the step began; undefined if there is none, or it is unknown. */
  readonly database: string | undefined
  /** Every pod of a namespace since the start of the exercise, and the moment at which the step began. */
  readonly historyOf: (
    namespace: string,
  ) => { readonly history: PodHistory; readonly from: number } | undefined
  readonly ledger: Ledger | undefined
  /** When the first of this step and its needs began, by `performance.now`; undefined if not in this process. */
  readonly ledgerFrom: number | undefined
}

/** Timeout of a command of a check, in seconds. */
const commandDeadline = 10

/** Longer evidence does not fit on a screen. */
const longestSaw = 300

const short = (text: string): string => {
  const line = text.replace(/\s+/g, ' ').trim()
  return line.length > longestSaw ? `${line.slice(0, longestSaw)}…` : line
}

const yesOr = (ok: boolean, saw: string): Answer => ({ is: ok ? 'yes' : 'not yet', saw: short(saw) })
const unknown = (saw: string): Answer => ({ is: 'could not ask', saw: short(saw) })

/** Replaces `{database}` in a command by the node of the database. */
const filled = ({ database }: Asking, text: string): string => {
  if (!text.includes('{database}')) return text
  if (database === undefined)
    throw new LabError('no-database', 'the worker on which the database ran when this step began is unknown')
  return text.replaceAll('{database}', database)
}

const machinesOf = ({ context: { lab }, database }: Asking, word: string): readonly string[] => {
  if ((word === 'database' || word === 'standby') && database === undefined)
    throw new LabError('no-database', 'the worker on which the database ran when this step began is unknown')
  const names = machinesAt(lab, word, { server: database ?? '' }).map(({ name }) => name)
  // What holds for each of no machines says nothing.
  if (names.length === 0) throw new LabError('bad-check', `no machine of ${lab.name} is ${word}`)
  return names
}

/** The output of a command on each machine; undefined if the answer is no. */
export const outputOf = async (
  asking: Asking,
  { on, command }: { readonly on: string; readonly command: string },
): Promise<{ readonly ok: boolean; readonly out: string }> => {
  const { context } = asking
  const results = await Promise.all(
    machinesOf(asking, on).map((name) =>
      context
        .machine(name)
        .try({ text: command, shown: command }, { signal: context.signal, timeout: commandDeadline }),
    ),
  )
  // 126, 127: the shell could not even start it; 128: a signal ended it. That says nothing about the learner's work.
  const unasked = results.find(({ exitCode }) => exitCode >= 126 && exitCode <= 128)
  if (unasked)
    throw new LabError(
      'bad-check',
      `${command}: ${unasked.stderr.trim() || `exit code ${String(unasked.exitCode)}`}`,
    )
  return {
    ok: results.every(({ exitCode }) => exitCode === 0),
    out: results.map(({ stdout, stderr }) => stdout.trim() || stderr.trim()).join('\n'),
  }
}

/**
 * What a command measured on each machine.
 * @throws LabError if it failed, or said nothing: neither is a right answer
 */
export const measuredBy = async (
  asking: Asking,
  asked: { readonly on: string; readonly command: string },
): Promise<string> => {
  const { ok, out } = await outputOf(asking, asked)
  if (ok && out.trim() !== '') return out
  throw new LabError('bad-check', `${asked.command}: ${ok ? 'it said nothing' : out || 'it failed'}`)
}

/** Splits a text into words as a shell does: quotes keep spaces together. */
export const wordsOf = (line: string): readonly string[] =>
  [...line.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"]+)+/g)].map(([word]) =>
    word.replace(/'([^']*)'|"([^"]*)"/g, (_, single?: string, double?: string) => single ?? double ?? ''),
  )

const askVerify = async ({ context, plan }: Asking, wanted: 'all' | readonly string[]): Promise<Answer> => {
  const checks = plan.steps
    .flatMap((step) => step.checks)
    .filter(({ id }) => wanted === 'all' || wanted.includes(id))
  const missing = wanted === 'all' ? [] : wanted.filter((id) => checks.every((check) => check.id !== id))
  if (missing.length > 0 || checks.length === 0)
    return unknown(`lab verify has no check ${missing.join(', ')}`.trim())
  const answers = await Promise.all(
    checks.map(async (check): Promise<Answer & { readonly title: string }> => {
      try {
        const { ok, saw } = await unlessAborted(context.signal, check.probe(context))
        return { ...yesOr(ok, saw), title: check.title }
      } catch (error) {
        context.signal.throwIfAborted()
        return { ...unknown(messageOf(error)), title: check.title }
      }
    }),
  )
  const worst = answers.find(({ is }) => is === 'not yet') ?? answers.find(({ is }) => is === 'could not ask')
  if (!worst)
    return yesOr(
      true,
      answers.length === 1 ? (answers[0]?.saw ?? '') : `all ${String(answers.length)} checks hold`,
    )
  const others = answers.filter(({ is }) => is !== 'yes').length - 1
  return {
    is: worst.is,
    saw: short(`${worst.title}: no: ${worst.saw}${others > 0 ? `; and ${String(others)} more` : ''}`),
  }
}

const askKubectl = async (
  asking: Asking,
  { args, says }: { readonly args: string; readonly says?: string | undefined },
): Promise<Answer> => {
  try {
    const out = await asking.context.kubectl.run(wordsOf(filled(asking, args)), {
      timeout: commandDeadline,
    })
    return yesOr(says === undefined || new RegExp(says, 'm').test(out), out.trim() || '(nothing)')
  } catch (error) {
    // A missing object, or a command that says no, is an answer; a silent API server is not.
    if (error instanceof LabError && (error.code === notThere || error.code === commandFailed))
      return yesOr(false, error.message)
    throw error
  }
}

const askClaim = ({ historyOf }: Asking, claim: NonNullable<OneCheck['claim']>): Answer => {
  const seen = historyOf(claim.namespace)
  if (!seen) return unknown('the pods were not watched from the beginning of this step')
  const { history, from } = seen
  const unseen = history.unseenSince(from)
  if (unseen !== undefined) return unknown(`${unseen}: start that step again`)
  const [key, value] = claim.label?.split('=') ?? []
  const which: Which = key === undefined ? everyPod : (pod) => pod.labels[key] === value
  const bounds = { ready: claim.ready ?? 0, there: claim.there ?? 0 }
  const order = claim.order ?? []
  const verdicts: Readonly<Record<typeof claim.is, () => Verdict>> = {
    'stayed-within': () => claims.stayedWithin(history, from, bounds, which),
    reached: () => claims.reached(history, from, bounds, which),
    made: () => claims.made(history, from, claim.count ?? 0, which),
    'started-in-order': () => claims.startedInOrder(history, from, order),
    'ended-in-order': () => claims.endedInOrder(history, from, order),
    'updated-in-order': () => claims.updatedInOrder(history, from, order, claim.image ?? ''),
    'started-together': () => claims.startedTogether(history, from, order),
    'ended-together': () => claims.endedTogether(history, from, order),
  }
  const { ok, saw } = verdicts[claim.is]()
  return yesOr(ok, saw)
}

const askLedger = async (
  { ledger, ledgerFrom }: Asking,
  wanted: NonNullable<OneCheck['ledger']>,
): Promise<Answer> => {
  if (!ledger) return unknown('no ledger is written')
  if (ledgerFrom === undefined)
    return unknown(
      'the ledger of an earlier step was written before lab learn was restarted: start that step again',
    )
  const gap = ledger.longestWriteGap(ledgerFrom)
  if (gap === undefined) return unknown('no write has been acknowledged yet')
  const saw = [`longest time without an answer ${(gap.length / 1000).toFixed(1)} s`]
  const budget = wanted.writeGap
  const least = wanted.longerThan
  if (gap.open && gap.now > 1000)
    return yesOr(false, `no write has been answered for ${(gap.now / 1000).toFixed(0)} s`)
  if (budget !== undefined && gap.length > budget)
    return yesOr(false, `${saw.join()}; expected at most ${durationText(budget)}`)
  if (least !== undefined && gap.length < least)
    return yesOr(false, `${saw.join()}; expected at least ${durationText(least)}`)
  if (wanted.taken) {
    const taken = ledger.takenOver(ledgerFrom)
    saw.push(taken === undefined ? 'no other server has answered' : `now answered by ${taken}`)
    if (taken === undefined) return yesOr(false, saw.join('; '))
  }
  if (wanted.lost !== undefined || wanted.writers !== undefined) {
    const { lost, turns, acknowledged } = await ledger.readBack()
    saw.push(`${String(acknowledged)} writes acknowledged, ${String(lost)} missing or changed`)
    if (wanted.lost !== undefined && lost > wanted.lost) return yesOr(false, saw.join('; '))
    if (wanted.writers === 1 && turns) return yesOr(false, `${saw.join('; ')}; two servers wrote alternately`)
  }
  return yesOr(true, saw.join('; '))
}

const askOne = async (asking: Asking, check: OneCheck): Promise<Answer> => {
  const { context } = asking
  const { lab, provider } = context
  if (check.verify) return askVerify(asking, check.verify)
  if (check.run) {
    const { ok, out } = await outputOf(asking, check.run)
    const { says } = check.run
    return yesOr(ok && (says === undefined || new RegExp(says, 'm').test(out)), out || (ok ? 'yes' : 'no'))
  }
  if (check.kubectl) return askKubectl(asking, check.kubectl)
  if (check.state) {
    const { machine, is } = check.state
    const names = machinesOf(asking, machine)
    const found = (await provider.states(lab)).filter(({ name }) => names.includes(name))
    if (found.length < names.length)
      return unknown(`the provider does not know the state of ${names.join(', ')}`)
    const now = found.map(({ name, status, paused }) => ({
      name,
      is: paused === true ? 'paused' : status === 'running' ? 'running' : 'off',
    }))
    return yesOr(
      now.every((each) => each.is === is),
      now.map((each) => `${each.name} is ${each.is}`).join(', '),
    )
  }
  if (check.fault) {
    const { fault, machine } = check.fault
    const names = machinesOf(asking, machine)
    const open = (await readJournal(lab)).filter(
      (entry) => entry.fault === fault && names.includes(entry.undo.machine),
    )
    return yesOr(
      names.every((name) => open.some(({ undo }) => undo.machine === name)),
      open.map((entry) => `${entry.fault} on ${entry.undo.machine}, by ${entry.by}`).join('; ') ||
        `no ${fault} on ${names.join(', ')}`,
    )
  }
  if (check.claim) return askClaim(asking, check.claim)
  if (check.ledger) return askLedger(asking, check.ledger)
  return unknown('a check with nothing to ask')
}

const opposite = { yes: 'not yet', 'not yet': 'yes', 'could not ask': 'could not ask' } as const

/** Asks a check once. @throws when the run is interrupted */
export const askCheck = async (asking: Asking, spec: CheckSpec): Promise<Answer> => {
  const { signal } = asking.context
  const answers = await Promise.all(
    checksOf(spec).map(async (check): Promise<Answer> => {
      try {
        const answer = await unlessAborted(signal, askOne(asking, check))
        return check.not ? { ...answer, is: opposite[answer.is] } : answer
      } catch (error) {
        signal.throwIfAborted()
        return unknown(messageOf(error))
      }
    }),
  )
  return (
    answers.find(({ is }) => is === 'not yet') ??
    answers.find(({ is }) => is === 'could not ask') ?? {
      is: 'yes',
      saw: short(answers.map(({ saw }) => saw).join('; ')),
    }
  )
}
