/** Attempts at an exercise, on a lab that consists of a few variables. */
import { mkdir } from 'node:fs/promises'
import { beforeEach, expect, test, vi } from 'vitest'
import type { Context } from '../../src/context.js'
import { Attempt, type Surroundings } from '../../src/learn/attempt.js'
import { wordsOf } from '../../src/learn/check.js'
import { exercisesFolder, folderOfExercise, loadExercise, type Exercise } from '../../src/learn/load.js'
import { commandFailed, LabError, notThere } from '../../src/error.js'
import { readProgress } from '../../src/learn/progress.js'
import { prove, proofsJunit } from '../../src/learn/prove.js'
import { loadLab } from '../../src/registry.js'
import { PodHistory } from '../../src/trial/history.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = await loadLab('iscsi')
const shipped = loadExercise(folderOfExercise(exercisesFolder('iscsi'), 'iscsi', 'chap-login'), lab, [])
const hidden = loadExercise(folderOfExercise(exercisesFolder('iscsi'), 'iscsi', 'find-the-fault'), lab, [])

/** The answer of a machine; undefined: it does not answer. */
let world: { value: string; silent: boolean }

const small = (change: Partial<Exercise> = {}): Exercise => ({
  ...shipped,
  name: 'small',
  broken: [],
  wrong: [{ at: 'one', run: 'almost', hint: 'nearly' }],
  steps: [
    {
      id: 'one',
      check: { run: { on: 'target', command: 'value', says: '^good$' } },
      needs: [],
      for: 1,
      within: 1_000,
      hints: [
        { when: { run: { on: 'target', command: 'value', says: '^almost$' } }, say: 'nearly' },
        { say: 'first' },
        { say: 'second' },
      ],
      solution: 'good',
    },
    {
      id: 'two',
      ask: { for: 'seconds', truth: { run: { on: 'target', command: 'size' } }, tolerance: 1_000 },
      needs: ['one'],
      for: 1,
      within: 1_000,
      hints: [{ say: 'first' }],
    },
  ],
  ...change,
})

const around = (): Surroundings => ({
  context: {
    lab,
    signal: new AbortController().signal,
    provider: { states: async () => [] },
    machine: () => ({
      try: async ({ text }: { text: string }) => {
        if (world.silent) throw new Error('no answer')
        if (text === 'no such') return { exitCode: 127, stdout: '', stderr: 'not found' }
        return { exitCode: 0, stdout: text === 'size' ? String(world.value.length) : world.value, stderr: '' }
      },
    }),
  } as unknown as Context,
  plan: { title: '', steps: [] },
  histories: new Map(),
  clock: () => 0,
  ledger: undefined,
  type: async (commands) => {
    world.value = commands.trim()
    return { exitCode: 0, out: '' }
  },
  reset: async () => {
    world.value = 'bad'
  },
})

const events = async (): Promise<readonly string[]> =>
  (await readProgress(lab)).map(({ what, step = '' }) => `${what} ${step}`.trim())

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(pathsOf(lab).root, { recursive: true })
  world = { value: 'bad', silent: false }
})

test('a check answers yes, not yet, or could not ask, which is not the learner’s mistake', async () => {
  const attempt = await Attempt.begin(small(), around())
  const [one] = small().steps
  await attempt.beginStep(one!)
  expect(await attempt.ask(one!)).toEqual({ is: 'not yet', saw: 'bad' })
  world.silent = true
  expect(await attempt.ask(one!)).toEqual({ is: 'could not ask', saw: 'no answer' })
  world = { value: 'good', silent: false }
  expect(await attempt.ask(one!)).toEqual({ is: 'yes', saw: 'good' })
})

test('a check whose command the machine does not have could not be asked', async () => {
  const step = { ...small().steps[0]!, check: { run: { on: 'target', command: 'no such' } } }
  const attempt = await Attempt.begin(small({ steps: [step] }), around())
  expect((await attempt.ask(step)).is).toBe('could not ask')
})

test.each([
  [commandFailed, 'not yet'],
  [notThere, 'not yet'],
  ['kubectl-failed', 'could not ask'],
] as const)('a kubectl check that fails with the code %s is answered with %s', async (code, is) => {
  const step = { ...small().steps[0]!, check: { kubectl: { args: 'exec db -- mariadb' } } }
  const { context, ...others } = around()
  const kubectl = { run: () => Promise.reject(new LabError(code, 'no')) }
  const attempt = await Attempt.begin(small({ steps: [step] }), {
    ...others,
    context: { ...context, kubectl } as unknown as Context,
  })
  expect(await attempt.ask(step)).toEqual({ is, saw: 'no' })
})

test('a step is done only when its check has held without interruption, and a check that could not be asked interrupts it', async () => {
  const step = { ...small().steps[0]!, for: 40 }
  const attempt = await Attempt.begin(small({ steps: [step] }), around())
  await attempt.beginStep(step)
  world.value = 'good'
  expect((await attempt.look(step)).done).toBe(false)
  await new Promise((resolve) => setTimeout(resolve, 60))
  world.silent = true
  expect((await attempt.look(step)).is).toBe('could not ask')
  world.silent = false
  expect((await attempt.look(step)).done).toBe(false)
  await new Promise((resolve) => setTimeout(resolve, 60))
  expect((await attempt.look(step)).done).toBe(true)
})

test('an attempt continues in another process, which knows what is done and what no longer holds', async () => {
  const exercise = small()
  const attempt = await Attempt.begin(exercise, around())
  const [one, two] = exercise.steps
  await attempt.beginStep(one!)
  world.value = 'good'
  await attempt.look(one!)
  await new Promise((resolve) => setTimeout(resolve, 5))
  expect((await attempt.look(one!)).done).toBe(true)
  const again = await Attempt.begin(exercise, around())
  expect(again.next).toBe(two)
  world.value = 'bad'
  await again.recheck()
  expect(again.next).toBe(one)
  expect([...again.standing.ever]).toEqual(['one'])
  expect(await events()).toEqual(['begun', 'step one', 'saw one', 'done one', 'begun', 'no-longer one'])
})

test('the answer to a question is measured in the learner’s own run, and is not revealed', async () => {
  const exercise = small()
  const [one, two] = exercise.steps
  const attempt = await Attempt.begin(exercise, around())
  await attempt.beginStep(two!)
  expect((await attempt.ask(two!)).saw).toBe('do the step one first')
  await attempt.beginStep(one!)
  world.value = 'good'
  await attempt.look(one!)
  await new Promise((resolve) => setTimeout(resolve, 5))
  await attempt.look(one!)
  await attempt.answer(two!, '6.5')
  expect(await attempt.ask(two!)).toEqual({ is: 'not yet', saw: '6.5 is not what was measured in your run' })
  await attempt.answer(two!, '4,5 s')
  expect((await attempt.ask(two!)).is).toBe('yes')
})

test('a hint is chosen by the state of the lab, and otherwise one after another is given', async () => {
  const attempt = await Attempt.begin(small(), around())
  const [one] = small().steps
  expect([await attempt.hint(one!), await attempt.hint(one!), await attempt.hint(one!)]).toEqual([
    'first',
    'second',
    'second',
  ])
  world.value = 'almost'
  expect(await attempt.hint(one!)).toBe('nearly')
})

test('a seed always draws the same fault, and some seed draws each of them', async () => {
  const drawn = new Set<string>()
  for (let seed = 0; seed < 30; seed++) {
    const attempt = await Attempt.begin(hidden, around(), seed)
    const first = attempt.drawnFor(hidden.steps[0]!)?.id
    const same = await Attempt.begin(hidden, around(), seed)
    expect(same.drawnFor(hidden.steps[0]!)?.id).toBe(first)
    drawn.add(first ?? '')
  }
  expect([...drawn].sort()).toEqual(['firewall', 'password', 'target-off'])
})

test('a drawn fault is injected once, even if the step is started again', async () => {
  const attempt = await Attempt.begin(hidden, around(), 1)
  const [find] = hidden.steps
  await attempt.beginStep(find!)
  expect(world.value).not.toBe('bad')
  world.value = 'repaired'
  await attempt.beginStep(find!)
  expect(world.value).toBe('repaired')
})

test('the proof of a correct exercise passes', async () => {
  const proofs = await prove(small(), around(), 1, () => undefined)
  expect(proofs.filter(({ outcome }) => outcome !== 'passed')).toEqual([])
  expect(proofs.map(({ title }) => title)).toContain(
    'the check says not yet after a wrong attempt, which gets the hint nearly',
  )
  expect(proofsJunit(proofs)).toContain('<testsuite name="small" tests="12" failures="0" skipped="0">')
})

test.each([
  [
    'that says yes before the work',
    { run: { on: 'target', command: 'value' } },
    'the check says not yet before the work',
  ],
  [
    'that never says yes',
    { run: { on: 'target', command: 'value', says: '^never$' } },
    'the check says yes after the solution',
  ],
  [
    'that a wrong attempt satisfies',
    { run: { on: 'target', command: 'value', says: 'good|almost' } },
    'the check says not yet after a wrong attempt, which gets the hint nearly',
  ],
])('the proof of an exercise fails for a check %s', async (_, check, title) => {
  const exercise = small()
  const [one] = exercise.steps
  const proofs = await prove({ ...exercise, steps: [{ ...one!, check }] }, around(), 1, () => undefined)
  expect(proofs.filter(({ outcome }) => outcome === 'failed').map((proof) => proof.title)).toContain(title)
})

test('a proof begins each step again after the reset, since its check may be about the worker that ran the database then', async () => {
  const { context, ...others } = around()
  const surroundings = { ...others, context: { ...context, lab: { ...lab, database: undefined } } as Context }
  const exercise = small()
  await prove(exercise, surroundings, 1, () => undefined)
  const told = await events()
  const after = told.slice(told.lastIndexOf('reset'))
  for (const { id } of exercise.steps) expect(after).toContain(`step ${id}`)
})

test('a proof restores the lab after a step has failed, and says so', async () => {
  const exercise = small()
  const [one, two] = exercise.steps
  const never = { run: { on: 'target', command: 'value', says: '^never$' } }
  const proofs = await prove({ ...exercise, steps: [{ ...one!, check: never }, two!] }, around(), 1, () => {})
  const told = proofs.map(({ step, title, outcome }) => `${step}: ${title}: ${outcome}`)
  expect(told).toContain('two: the check says yes after the solution: not reached')
  expect(told).toContain('reset: the lab is restored: passed')
  expect(told.slice(-2)).toEqual([
    'one: the check says not yet after a reset: passed',
    'two: the check says not yet after a reset: passed',
  ])
})

test('a proof tries nothing after the lab could not be restored', async () => {
  let resets = 0
  const reset = async (): Promise<void> => {
    if (resets++ > 0) throw new Error('the machines do not answer')
    world.value = 'bad'
  }
  const proofs = await prove(small(), { ...around(), reset }, 1, () => {})
  expect(proofs.slice(-3).map(({ outcome, saw }) => `${outcome}: ${saw}`)).toEqual([
    'failed: the machines do not answer',
    'not reached: an earlier step failed',
    'not reached: an earlier step failed',
  ])
})

test('the proof of an exercise fails when a wrong attempt gets a hint other than the one it names', async () => {
  const proofs = await prove(
    small({ wrong: [{ at: 'one', run: 'other', hint: 'nearly' }] }),
    around(),
    1,
    () => undefined,
  )
  expect(proofs.find(({ outcome }) => outcome === 'failed')?.saw).toBe('other; hint: first')
})

test.each([
  ['fails', { exitCode: 1, stdout: '', stderr: '' }, 'size: it failed'],
  ['says nothing', { exitCode: 0, stdout: '', stderr: '' }, 'size: it said nothing'],
  ['says no number', { exitCode: 0, stdout: 'four', stderr: '' }, 'four: no number was measured'],
])('a question whose command %s could not be asked: 0 is not its right answer', async (_, said, saw) => {
  const { context, ...others } = around()
  const two = { ...small().steps[1]!, needs: [] }
  const attempt = await Attempt.begin(small({ steps: [two] }), {
    ...others,
    context: { ...context, machine: () => ({ try: async () => said }) } as unknown as Context,
  })
  await attempt.beginStep(two)
  await attempt.answer(two, '0')
  expect(await attempt.ask(two)).toEqual({ is: 'could not ask', saw })
})

test.each([
  ['of no machine', { run: { on: 'worker', command: 'value' } }],
  ['of the state of no machine', { state: { machine: 'worker', is: 'off' }, not: true }],
  [
    'of a machine that the provider does not know',
    { state: { machine: 'target', is: 'running' }, not: true },
  ],
  ['of a fault of no machine', { fault: { fault: 'hang', machine: 'worker' }, not: true }],
  ['that lab verify does not have', { verify: ['gone'] }],
  ['of all checks of a lab without any', { verify: 'all' }],
] as const)('a check %s could not be asked, and is never yes', async (_, check) => {
  const step = { ...small().steps[0]!, check: check as unknown as NonNullable<Exercise['steps'][0]['check']> }
  const attempt = await Attempt.begin(small({ steps: [step] }), around())
  await attempt.beginStep(step)
  expect((await attempt.ask(step)).is).toBe('could not ask')
})

test.each([
  ['were missed since the step began', (history: PodHistory) => history.miss(10, 'too old'), 'could not ask'],
  ['are not seen at the moment', (history: PodHistory) => (history.blind = 'refused'), 'could not ask'],
  ['were missed before', (history: PodHistory) => history.miss(-1, 'too old'), 'yes'],
])('a claim about pods whose changes %s is answered with what is known', async (_, happens, is) => {
  const check = { claim: { is: 'stayed-within', namespace: 'default', ready: 0, there: 3 } }
  const step = { ...small().steps[0]!, check: check as NonNullable<Exercise['steps'][0]['check']> }
  const history = new PodHistory()
  const surroundings = { ...around(), histories: new Map([['default', history]]) }
  const attempt = await Attempt.begin(small({ steps: [step] }), surroundings)
  await attempt.beginStep(step)
  happens(history)
  expect((await attempt.ask(step)).is).toBe(is)
})

test('words are split as a shell splits them', () => {
  expect(wordsOf(`get pods -o jsonpath='{.items[*].spec.nodeName}' --selector "app=x y"`)).toEqual([
    'get',
    'pods',
    '-o',
    'jsonpath={.items[*].spec.nodeName}',
    '--selector',
    'app=x y',
  ])
})
