import { describe, expect, test } from 'vitest'
import { reportJson, reportTable } from '../../src/plan/report.js'
import type { Report, Step, StepResult } from '../../src/plan/step.js'
import { reportOf, resultOf, stepOf } from '../view/plans.js'

const withHint = (step: Step, hint: string): Step => {
  const [first, ...more] = step.checks
  return { ...step, checks: [{ ...first, hint }, ...more] }
}

const boot = stepOf('boot-cp', 'Boot cp', 'machines', 'cp', ['cp answers over SSH', 'cp has 2048 MiB'])
const ready = withHint(
  stepOf('ready', 'Look at worker1', 'nodes', 'worker1', ['node worker1 is Ready', 'worker1 runs v1.36.3']),
  'lab ssh iscsi-ha worker1 -- sudo journalctl -u kubelet -n 50',
)
const join = stepOf('join', 'Join worker2', 'nodes', 'worker2', ['node worker2 is Ready'])
const route = stepOf('route', 'Set the route', 'nodes', 'worker1', ['worker1 has the route'])
const deploy = stepOf('deploy', 'Deploy the database', 'workload', undefined, [
  'the database answers | pings',
  'a row survives',
])

const saw = (result: StepResult, ...seen: readonly (readonly [boolean, string])[]): StepResult => ({
  ...result,
  checks: result.checks.map((check, index) => ({
    ...check,
    ok: seen[index]?.[0] ?? check.ok,
    saw: seen[index]?.[1] ?? check.saw,
  })),
})

const notReady = 'NotReady: *container* runtime `down` | hunter2hunter2 \u001b[31m!\u001b[0m'

const mixed: Report = reportOf('Verify iscsi-ha', [
  saw(resultOf(boot, 'ok'), [true, 'OpenSSH_9.2\nDebian'], [true, '2048 MiB']),
  saw(
    resultOf(ready, 'failed', { reason: `node worker1 is Ready: no: ${notReady}`, failedBy: 'check' }),
    [false, notReady],
    [true, 'v1.36.3'],
  ),
  // A command failed after its check had failed: the check's words are not the reason.
  saw(
    resultOf(route, 'failed', {
      reason: 'ip route: exit code 2',
      failedBy: 'error',
      hint: 'lab ssh iscsi-ha worker1',
    }),
    [false, 'no route'],
  ),
  // Its command failed: the earlier evidence of its checks is not in the report.
  {
    ...resultOf(join, 'failed', {
      reason: 'kubeadm join: exit code 1',
      failedBy: 'error',
      hint: 'lab up iscsi-ha',
    }),
    checks: [],
  },
  resultOf(deploy, 'not-reached', { reason: 'needs: Join worker2' }),
])

const good = reportOf('Verify good', [resultOf(boot, 'ok'), resultOf(deploy, 'changed')])

const mask = (text: string): string => text.replaceAll('hunter2hunter2', '***')

describe('the golden reports', () => {
  test('a report is printed as a table', async () => {
    await expect(`${reportTable(mixed, false, mask)}\n`).toMatchFileSnapshot('golden/report.txt')
  })
  test('a report is printed as JSON', async () => {
    const json = `${JSON.stringify(reportJson(mixed, mask), null, 2)}\n`
    await expect(json).toMatchFileSnapshot('golden/report.json.txt')
  })
})

const lastLine = (report: Report, color = false): string =>
  reportTable(report, color).split('\n').at(-1) ?? ''

describe('the last line of the table', () => {
  test.each([
    { name: 'all good', report: good, want: '4 passed, 0 failed' },
    // A step that failed without checks counts, or the line would call a failed run good.
    { name: 'mixed', report: mixed, want: '3 passed, 3 failed' },
    { name: 'nothing to verify', report: reportOf('Empty', []), want: '0 passed, 0 failed' },
    { name: 'interrupted', report: { ...good, interrupted: true }, want: '4 passed, 0 failed' },
  ])('the table of a report ends with the right line ($name): $want', ({ report, want }) => {
    expect(lastLine(report)).toBe(want)
    expect(lastLine(report, true)).toBe(want)
  })

  test('a report counts 60 checks', () => {
    const results = Array.from({ length: 60 }, (_, index) =>
      resultOf(stepOf(`s${String(index)}`, 'Look', 'looks'), index < 58 ? 'ok' : 'failed'),
    )
    expect(lastLine(reportOf('Sixty', results))).toBe('58 passed, 2 failed')
  })
})

test('a report mentions checks that were not asked, and an interruption, before the counts', () => {
  const lines = reportTable({ ...mixed, interrupted: true }, false).split('\n')
  expect(lines.slice(-4)).toEqual(['', 'interrupted', '3 not asked', '3 passed, 3 failed'])
})

test('a report masks secrets in every format', () => {
  for (const text of [JSON.stringify(reportJson(mixed, mask)), reportTable(mixed, true, mask)])
    expect(text).not.toContain('hunter2')
})

test('a report colours the table', () => {
  expect(reportTable(good, true)).toContain('\u001b[32m✔\u001b[39m')
  expect(reportTable(good, false)).not.toContain('\u001b')
})

test('a report contains only plain data in JSON', () => {
  const json = reportJson(mixed)
  expect(JSON.parse(JSON.stringify(json))).toEqual(json)
})

test('the table says why a command failed also when the reason contains the words of a failing check', () => {
  const failed = resultOf(route, 'failed', { reason: 'ip: no route to host', failedBy: 'error' })
  const table = reportTable(reportOf('Up', [saw(failed, [false, 'no route'])]), false)
  expect(table).toContain('ip: no route to host')
})
