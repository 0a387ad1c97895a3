/** A check that a lab file can name is one file and one line in a list: this test adds one for Jobs, and uses it. */
import { expect, test, vi } from 'vitest'
import type { Context } from '../../src/context.js'
import { loadLab, parseLab } from '../../src/registry.js'
import { workload } from '../../src/lab/schema.js'
import { ask } from '../../src/plan/runner.js'
import { readyChecks } from '../../src/ready/list.js'
import { deployWorkload } from '../../src/steps/workloads.js'

vi.mock('../../src/ready/list.js', async (original) => {
  const { readyChecks: shipped }: typeof import('../../src/ready/list.js') = await original()
  return { readyChecks: { ...shipped, job: (await import('./job.js')).job } }
})

const spec = (...ready: readonly string[]) => ({ manifest: 'import.yaml', ready })

test('a lab file can name an added check, and its check list is reported when it names an unknown one', () => {
  expect(workload.safeParse(spec('job/import', 'deployment/web')).success).toBe(true)
  const { error } = workload.safeParse(spec('cronjob/import'))
  expect(error?.issues[0]?.message).toContain(
    'expected deployment/, statefulset/, daemonset/ or job/ and a name',
  )
  expect(() => parseLab('', 'empty.yaml')).toThrow()
})

test('an added check asks the cluster, with its own title and judgement', async () => {
  const lab = await loadLab('wordpress')
  const step = deployWorkload(lab, { ...spec('job/import', 'statefulset/db'), within: 1000 }, undefined)
  expect(step.checks.map(({ title }) => title)).toEqual([
    'job/import has succeeded',
    'statefulset/db has all its pods, up to date and ready',
  ])
  const seen = (status: object): Promise<unknown> =>
    ask(step.checks[0], {
      signal: new AbortController().signal,
      kubectl: { get: async (what: string) => (what === 'job/import' ? { status } : undefined) },
    } as unknown as Context)
  expect(await seen({})).toEqual({ ok: false, saw: '0 succeeded' })
  expect(await seen({ succeeded: 1 })).toEqual({ ok: true, saw: '1 succeeded' })
})

test('the shipped checks wait for a controller that has not observed the latest generation, and for every pod', () => {
  const judged = (kind: string, status: object): string => {
    const { ok, saw } = readyChecks[kind]!.judge({
      metadata: { generation: 2 },
      spec: { replicas: 3 },
      status,
    })
    return `${ok ? 'ready' : 'not ready'}: ${saw}`
  }
  const replicas = { replicas: 3, updatedReplicas: 3, readyReplicas: 3 }
  for (const kind of ['deployment', 'statefulset']) {
    expect(judged(kind, { observedGeneration: 2, ...replicas })).toBe('ready: 3 of 3 ready, 3 up to date')
    expect(judged(kind, { observedGeneration: 1, ...replicas })).toMatch(/^not ready: .*not reported yet$/)
    expect(judged(kind, { observedGeneration: 2, ...replicas, replicas: 4 })).toMatch(/^not ready/)
  }
  expect(
    judged('daemonset', {
      observedGeneration: 2,
      desiredNumberScheduled: 2,
      updatedNumberScheduled: 2,
      numberReady: 1,
    }),
  ).toBe('not ready: 1 of 2 ready, 2 up to date')
})
