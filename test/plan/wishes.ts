import { type Mode, runPlan } from '../../src/plan/runner.js'
import type { Check, Context, Step } from '../../src/context.js'
import type { Report, RunEvent, StepResult, Verdict } from '../../src/plan/step.js'

/** The runner uses only the signal and the provider's slowdown; the rest is for steps, which need none of it here. */
export const contextWith = (signal: AbortSignal, slowdown?: number): Context =>
  ({ signal, slowdown }) as unknown as Context

export const yes: Verdict = { ok: true, saw: 'it is' }

export const no: Verdict = { ok: false, saw: 'it is not' }

/** The state of the world, by the name of the step that makes it. */
export type World = Set<string>

export interface Wish extends Partial<Omit<Step, 'checks' | 'apply'>> {
  readonly id: string
  readonly apply?: Step['apply'] | undefined
  readonly checks?: readonly Check[]
}

export const checkOf = (id: string, probe: Check['probe'], rest: Partial<Check> = {}): Check => ({
  id,
  title: `${id} is so`,
  probe,
  ...rest,
})

/** A step that is done once it was applied, unless the test says otherwise. */
export const stepIn = (world: World, { id, ...wish }: Wish): Step => {
  const [first, ...more] = wish.checks ?? [
    checkOf(`${id}-check`, () => Promise.resolve(world.has(id) ? yes : no), { within: 1 }),
  ]
  if (!first) throw new Error('a step has a check')
  const apply = 'apply' in wish ? wish.apply : () => Promise.resolve(void world.add(id))
  return {
    title: `Make ${id}`,
    phase: 'test',
    needs: [],
    ...wish,
    id,
    checks: [first, ...more],
    ...(apply === undefined ? {} : { apply }),
  } as Step
}

export interface Run {
  readonly report: Report
  readonly events: readonly RunEvent[]
  readonly outcomes: Readonly<Record<string, string>>
  readonly result: (id: string) => StepResult
}

export const runSteps = async (
  steps: readonly Step[],
  {
    mode = 'apply',
    signal = new AbortController().signal,
    slowdown,
  }: { mode?: Mode; signal?: AbortSignal; slowdown?: number } = {},
): Promise<Run> => {
  const events: RunEvent[] = []
  const report = await runPlan({ title: 'Test', steps }, mode, contextWith(signal, slowdown), (event) =>
    events.push(event),
  )
  return {
    report,
    events,
    outcomes: Object.fromEntries(report.results.map(({ step, outcome }) => [step.id, outcome])),
    result: (id) => {
      const found = report.results.find(({ step }) => step.id === id)
      if (!found) throw new Error(`no result of ${id}`)
      return found
    },
  }
}

/**
 * How many seconds an immediate end may take, also on a machine that builds a kernel meanwhile. If one of these tests
 * had to wait for something, it would take longer.
 */
export const soon = 8

export const elapsed = async <T>(action: () => Promise<T>): Promise<readonly [T, number]> => {
  const since = performance.now()
  return [await action(), (performance.now() - since) / 1000]
}
