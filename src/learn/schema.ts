/**
 * The logic of an exercise: `learn/NAME/exercise.yaml` next to a lab file. Its words are in `en.md` and `ja.md`, under
 * headings that are the ids used here, so translators never touch a check.
 */
import { z } from 'zod'
import { duration } from '../lab/fields.js'

const id = (what: string) =>
  z
    .string({ error: `${what}: a word of a-z, 0-9 and -` })
    .regex(/^[a-z][a-z0-9-]{0,39}$/, { error: `${what}: a word of a-z, 0-9 and -` })

const text = (what: string) => z.string({ error: what }).min(1, { error: what })

const pattern = z.string({ error: 'a regular expression' }).refine(
  (source) => {
    try {
      new RegExp(source, 'm')
      return true
    } catch {
      return false
    }
  },
  { error: 'this is not a regular expression' },
)

const who = text('a machine, a role, database or standby').meta({
  description:
    'A machine by its name, a role, `database` (the worker that ran the database when the step began) or `standby`.',
})

const count = z.int({ error: 'a whole number' }).nonnegative({ error: 'a number, 0 or more' })

const names = z.array(text('a pod'), { error: 'a list of pods' }).min(1, { error: 'a list of pods' })

export const claimNames = [
  'stayed-within',
  'reached',
  'made',
  'started-in-order',
  'ended-in-order',
  'updated-in-order',
  'started-together',
  'ended-together',
] as const

const claim = z.strictObject(
  {
    is: z.enum(claimNames, { error: `one of ${claimNames.join(', ')}` }),
    namespace: text('a namespace').default('default'),
    label: z
      .string({ error: 'a label: app=web' })
      .regex(/^[^=]+=[^=]+$/, { error: 'a label: app=web' })
      .optional()
      .meta({ description: 'Only pods with this label: `app=web`.' }),
    ready: count.optional(),
    there: count.optional(),
    count: count.optional(),
    order: names.optional(),
    image: text('an image').optional(),
  },
  { error: 'a claim: { is: stayed-within, ready: 8, there: 13 }' },
)

const ledger = z.strictObject(
  {
    lost: count.optional().meta({ description: 'Acknowledged writes that may be missing, at most.' }),
    writers: count.optional().meta({ description: 'Servers that may write at the same time, at most.' }),
    writeGap: duration('a duration', 'The longest time without an acknowledged write.').optional(),
    longerThan: duration('a duration', 'A gap of at least this length was seen.').optional(),
    taken: z.literal(true, { error: 'true' }).optional().meta({
      description: 'A pod other than the one at the beginning of the step has acknowledged writes.',
    }),
  },
  { error: 'what the ledger must say: { lost: 0, writers: 1, writeGap: 25s }' },
)

const onMachine = z.strictObject(
  {
    on: who,
    command: text('a command'),
    says: pattern
      .optional()
      .meta({ description: 'What its output must match. Without it, exit code 0 is enough.' }),
  },
  { error: 'a command: { on: initiator, command: cat /x, says: ok }' },
)

const inCluster = z.strictObject(
  {
    args: text('the words after kubectl').meta({
      description:
        'The words after `kubectl`, as typed. `{database}` is the node of the database when the step began.',
    }),
    says: pattern.optional().meta({ description: 'What its output must match.' }),
  },
  { error: 'words for kubectl: { args: get pod web-0, says: Running }' },
)

/** Every kind of check. A check has exactly one of these fields. */
export const checkKinds = ['verify', 'run', 'kubectl', 'state', 'fault', 'claim', 'ledger'] as const

const kinds = {
  verify: z
    .union([z.literal('all'), z.array(text('a check')).min(1)], {
      error: 'all, or a list of ids of checks of lab verify',
    })
    .optional()
    .meta({ description: 'Checks of `lab verify`: all of them, or some by their ids.' }),
  run: onMachine.optional(),
  kubectl: inCluster.optional(),
  state: z
    .strictObject(
      { machine: who, is: z.enum(['running', 'off', 'paused'], { error: 'running, off or paused' }) },
      { error: 'a state: { machine: target, is: off }' },
    )
    .optional(),
  fault: z
    .strictObject(
      { fault: text('the name of a fault, or power'), machine: who },
      { error: 'a fault: { fault: power, machine: database }' },
    )
    .optional()
    .meta({ description: 'What is in the journal of faults: `power` is what `lab power` notes.' }),
  claim: claim.optional(),
  ledger: ledger.optional(),
  not: z.literal(true, { error: 'true' }).optional().meta({ description: 'The check must not hold.' }),
}

const isOne = (given: Readonly<Record<string, unknown>>): boolean =>
  checkKinds.filter((kind) => given[kind] !== undefined).length === 1
const wantedOne = `expected exactly one of ${checkKinds.join(', ')}`
const wantedCheck = `a check: one of ${checkKinds.join(', ')}`

const oneCheck = z.strictObject(kinds, { error: wantedCheck }).refine(isOne, { error: wantedOne })

const check = z
  .strictObject(
    {
      ...kinds,
      and: z
        .array(oneCheck, { error: 'a list of checks' })
        .optional()
        .meta({ description: 'Other checks that must hold as well.' }),
    },
    { error: wantedCheck },
  )
  .refine(isOne, { error: wantedOne })

const ask = z.strictObject(
  {
    for: z.enum(['seconds', 'number', 'text', 'choice'], { error: 'seconds, number, text or choice' }),
    choices: z.array(id('a choice')).min(2, { error: 'two choices or more' }).optional(),
    truth: z
      .strictObject(
        {
          run: onMachine.omit({ says: true }).optional(),
          kubectl: inCluster.omit({ says: true }).optional(),
          ledger: z.enum(['longest-write-gap'], { error: 'longest-write-gap' }).optional(),
          drawn: z.literal(true, { error: 'true' }).optional(),
          is: z.union([z.string(), z.number()]).optional(),
        },
        { error: 'where the right answer comes from: run, kubectl, ledger, drawn or is' },
      )
      .refine((given) => Object.values(given).filter((value) => value !== undefined).length === 1, {
        error: 'expected exactly one of run, kubectl, ledger, drawn, is',
      })
      .optional()
      .meta({
        description: 'The right answer, measured in this run. Without it, any answer is accepted and kept.',
      }),
    tolerance: duration('a duration', 'How far an answer may be from it.').optional(),
    example: z.union([z.string(), z.number()]).optional().meta({
      description: 'An answer for tests, if any answer is accepted.',
    }),
  },
  { error: 'a question: { for: seconds }' },
)

const hint = z.strictObject(
  {
    when: check.optional().meta({ description: 'Without it: used if no other hint fits.' }),
    say: id('the heading of the hint'),
  },
  { error: 'a hint: { when: { state: { … } }, say: where-is-it }' },
)

const drawn = z.strictObject(
  {
    id: id('what is drawn'),
    run: text('commands'),
    solution: text('commands').optional(),
  },
  { error: 'something to draw: { id, run, solution }' },
)

const step = z.strictObject(
  {
    id: id('the id of a step'),
    check: check.optional(),
    ask: ask.optional(),
    needs: z
      .array(id('a step'))
      .default([])
      .meta({ description: 'Steps that must be done first, in this attempt, for this one to count.' }),
    for: duration('a duration', 'How long the check must hold without interruption.').prefault('2s'),
    within: duration('a duration', 'The longest time until the effect of the solution is seen.').prefault(
      '60s',
    ),
    hints: z.array(hint, { error: 'a list of hints' }).default([]),
    solution: text('commands').optional().meta({
      description: 'Commands as the learner types them, in a shell that has `lab`.',
    }),
    draw: z.array(drawn).min(1).optional().meta({
      description:
        'When the step begins, one of these is done in secret; the seed of the attempt decides which.',
    }),
  },
  { error: 'a step: { id, check, solution }' },
)

export const exerciseSchema = z.strictObject(
  {
    lab: text('the name of a lab'),
    minutes: z.int({ error: 'a number of minutes' }).positive({ error: 'a number of minutes' }),
    ledger: z.literal('database', { error: 'database' }).optional().meta({
      description: 'A client writes to the database from the first step to the last, and keeps a ledger.',
    }),
    steps: z.array(step, { error: 'a list of steps' }).min(1, { error: 'at least one step' }),
    broken: z
      .array(
        z.strictObject(
          { when: check, say: id('a heading') },
          { error: 'a state from which only reset helps: { when, say }' },
        ),
        { error: 'a list of states from which only reset helps' },
      )
      .default([]),
    wrong: z
      .array(
        z.strictObject(
          {
            at: id('a step'),
            run: text('commands').optional(),
            answer: z.union([z.string(), z.number()]).optional(),
            hint: id('the hint that it gets'),
            undo: text('commands').optional(),
          },
          { error: 'a wrong attempt: { at, run, hint }' },
        ),
        { error: 'a list of wrong attempts' },
      )
      .default([])
      .meta({
        description: 'Plausible mistakes, which tests make: each must stay not yet, and get its hint.',
      }),
  },
  { error: 'a mapping with lab, minutes and steps' },
)

export type OneCheck = z.output<typeof oneCheck>
export type CheckSpec = z.output<typeof check>
export type StepSpec = z.output<typeof step>
export type DrawnSpec = z.output<typeof drawn>
export type ExerciseSpec = z.output<typeof exerciseSchema>

/** A check, and others that must hold as well. */
export const checksOf = ({ and = [], ...first }: CheckSpec): readonly OneCheck[] => [first, ...and]
