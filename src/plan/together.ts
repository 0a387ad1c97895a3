/**
 * Whether everything holds at one moment. In a run, each check is asked at a moment of its own, and what held early may
 * have stopped holding since: an API server that was ready before the pods of its node started, for example.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { fewAtOnce } from './few-at-once.js'
import { ask } from './runner.js'
import type { CheckResult, Plan, Seconds, Step, Surroundings, Verdict } from './step.js'

/**
 * A round that takes long keeps the machines from what they should do: they are left in peace for half of its time,
 * up to this many seconds.
 */
const longestPause: Seconds = 8

/** Seconds until everything must hold, unless a check of the plan may take longer. */
const leastDeadline: Seconds = 60

/** Failing checks that are named; the others are counted. */
const mostNamed = 3

const named = (failing: readonly CheckResult[]): string =>
  [
    ...failing.slice(0, mostNamed).map(({ check, saw }) => `${check.title}: no: ${saw}`),
    ...(failing.length > mostNamed ? [`and ${String(failing.length - mostNamed)} more`] : []),
  ].join('; ')

/**
 * A plan of one step, which only looks: all checks of another plan, asked in one round, hold.
 * @param hint a command that shows every check
 */
export const together = <Around extends Surroundings>(
  plan: Plan<Around>,
  title: string,
  hint: string,
): Plan<Around> => {
  const checks = fewAtOnce(plan).steps.flatMap((step) => step.checks)
  const count = String(checks.length)
  const since = performance.now()
  /** What the first round that failed saw, and when: the reason for a delay is worth knowing. */
  let before = ''
  const probe = async (around: Around): Promise<Verdict> => {
    const asked = performance.now()
    const results = await Promise.all(checks.map(async (check) => ({ check, ...(await ask(check, around)) })))
    const failing = results.filter(({ ok }) => !ok)
    if (failing.length === 0) return { ok: true, saw: `all ${count}${before}` }
    const saw = named(failing)
    before ||= `, but not ${((performance.now() - since) / 1000).toFixed(1)} s after the run: ${saw}`
    if (failing.some(({ final }) => final === true)) return { ok: false, saw, final: true }
    const took = performance.now() - asked
    await delay(Math.min(took / 2, longestPause * 1000), undefined, { signal: around.signal })
    return { ok: false, saw }
  }
  const step: Step<Around> = {
    id: 'hold-together',
    title: `Check that everything holds at one moment`,
    phase: 'as a whole',
    needs: [],
    checks: [
      {
        id: 'all-together',
        title: `all ${count} checks hold at one moment`,
        within: Math.max(leastDeadline, ...checks.map(({ within = 0 }) => within)),
        hint,
        probe,
      },
    ],
  }
  return { title, steps: [step] }
}
