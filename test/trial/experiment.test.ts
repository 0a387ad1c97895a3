/**
 * Whole experiments with a fake cluster: what is claimed, what is reported, what is left behind.
 *
 * Over 400 lines because the fake cluster is as long as the tests that use it.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { ExperimentContext, Experiment } from '../../src/trial/experiment-context.js'
import { describeChange } from '../../src/trial/history.js'
import { runExperiment } from '../../src/trial/experiment.js'
import { loadLab, registry } from '../../src/registry.js'
import type { Sight, WatchEvent } from '../../src/machine/kubectl.js'
import type { Context } from '../../src/context.js'
import { runPage } from '../../src/report/documents.js'
import { runMarkdown } from '../../src/report/markdown.js'
import type { Facts } from '../../src/trial/facts.js'
import { runReport } from '../../src/report/run.js'
import type { ReadBack } from '../../src/trial/ledger.js'
import type { Store } from '../../src/trial/store.js'
import { readJournal } from '../../src/journal.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'
import { planWith } from '../helpers/plan.js'

const lab = await loadLab('deployment')

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(pathsOf(lab).root, { recursive: true })
})
afterEach(() => {
  vi.unstubAllEnvs()
})

type Cluster = ReturnType<typeof fakeCluster>

/** A cluster that remembers its commands. */
const fakeCluster = () => {
  const abort = new AbortController()
  const said: string[] = []
  let tell: (event: WatchEvent) => void = () => undefined
  let sight: Sight = {}
  let silent = false
  const notices: string[] = []
  let well = true
  let deployed = 0
  const kubectl = {
    run: async (args: readonly string[]) => {
      said.push(args.join(' '))
      if (silent && args.includes('get')) throw new Error('no answer')
      return Promise.resolve('')
    },
    get: async () => Promise.resolve({}),
    follow: async (_path: string, seen: typeof tell, _until: unknown, how: Sight) => {
      tell = seen
      sight = how
      return Promise.resolve()
    },
  }
  const contextWith = (signal: AbortSignal): Context =>
    ({
      lab,
      signal,
      kubectl,
      provider: {
        name: 'uml',
        states: async () =>
          Promise.resolve(lab.machines.map(({ name }) => ({ name, status: 'running', detail: '' }))),
      },
    }) as unknown as Context
  const plan = planWith({
    apply: async () => {
      deployed++
      well = true
      return Promise.resolve()
    },
    checks: [
      {
        id: 'well',
        title: 'it is well',
        probe: async () => Promise.resolve({ ok: well, saw: well ? 'yes' : 'no' }),
      },
    ],
  })
  const saved: Facts[] = []
  return {
    said,
    abort,
    saved,
    notices,
    /** The watch of its pods fails, works again, or has lost changes. */
    lose: (reason: string) => sight.lost?.(new Error(reason)),
    back: () => sight.back?.(),
    miss: (reason: string) => sight.missed?.(new Error(reason)),
    /** Questions have no answer, although no watch has failed yet. */
    silence: () => (silent = true),
    unwell: () => {
      well = false
    },
    /** How often the plan's state was restored. */
    deployed: () => deployed,
    /** Busy for a while with the last command. */
    wellLater: (milliseconds: number) => {
      well = false
      setTimeout(() => (well = true), milliseconds)
    },
    pod: (type: 'ADDED' | 'MODIFIED' | 'DELETED', name: string, ready: boolean) => {
      tell({
        type,
        object: {
          metadata: { name, uid: name },
          spec: { nodeName: 'worker1', containers: [{ image: 'docker.io/library/nginx:1.26' }] },
          status: { phase: 'Running', conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }] },
        },
      })
    },
    run: async (experiment: Experiment, steadyLimit = 0) =>
      runExperiment({
        registry,
        experiment,
        context: contextWith(abort.signal),
        healer: contextWith(new AbortController().signal),
        plan,
        versions: {},
        steadyLimit,
        ledgerPath: join(await temporaryFolder(), 'ledger.ndjson'),
        notice: (text) => void notices.push(text),
        event: () => undefined,
        save: async (facts) => {
          saved.push(facts)
          return Promise.resolve()
        },
      }),
  }
}

const doing = (run: (context: ExperimentContext) => Promise<void>): Experiment => ({
  name: 'scale',
  description: 'A Deployment is scaled',
  workers: 1,
  run,
})

test.each([
  { steadyLimit: 10_000, verdict: 'PASS' },
  { steadyLimit: 0, verdict: 'UNKNOWN' },
])(
  'a lab that is healthy only after a moment with a limit of $steadyLimit ms gives $verdict',
  async (wanted) => {
    const cluster = fakeCluster()
    cluster.wellLater(300)
    const facts = await cluster.run(
      doing(async (context) => {
        context.claim('something', { ok: true, saw: 'so' })
        return Promise.resolve()
      }),
      wanted.steadyLimit,
    )
    expect(runReport(facts).verdict).toBe(wanted.verdict)
  },
)

test('an experiment whose claims hold passes and leaves nothing behind', async () => {
  const cluster = fakeCluster()
  const facts = await cluster.run(
    doing(async (context) => {
      const from = await context.act('make a pod', async () => {
        cluster.pod('ADDED', 'web-0', true)
        return Promise.resolve()
      })
      await context.until(
        'the pod is ready',
        5,
        () => ({ ok: context.history.pods[0]?.ready === true, saw: 'ready' }),
        from,
      )
      context.figure('one pod', 1234, { ms: 19_000, how: 'text 4' })
    }),
  )
  const report = runReport(facts)
  expect(report.verdict).toBe('PASS')
  expect(report.figures).toEqual([{ title: 'one pod', ms: 1234, seed: { ms: 19_000, how: 'text 4' } }])
  expect(report.events.map(({ detail }) => detail)).toEqual(
    expect.arrayContaining(['make a pod', 'web-0 is made (nginx:1.26) on worker1']),
  )
  expect(report.checks.map(({ group }) => group)).toEqual(['before', 'claims', 'after'])
  expect(cluster.said).toContain('create namespace lab-scale')
  expect(cluster.said).toContain('delete namespace lab-scale --ignore-not-found')
  expect(await readJournal(lab)).toEqual([])
  expect(runMarkdown([report])).toContain('| one pod | 1.2 s | 19.0 s | text 4 |')
  const page = runPage([report])
  expect(page).toContain('web-0 is made (nginx:1.26) on worker1')
  expect(page).not.toContain('After the fault')
})

test('an experiment says why pods are not seen, once for each reason', async () => {
  const cluster = fakeCluster()
  await cluster.run(
    doing(async () => {
      for (const reason of ['refused', 'refused', 'forbidden']) cluster.lose(reason)
      return Promise.resolve()
    }),
  )
  expect(cluster.notices.filter((text) => text.startsWith('pods are not seen'))).toEqual([
    'pods are not seen: refused',
    'pods are not seen: forbidden',
  ])
})

test.each([
  [
    'a claim is made while pods are not seen',
    (cluster: Cluster, claim: () => void) => {
      cluster.lose('refused')
      claim()
      cluster.back()
    },
    ['two pods stayed ready', 'yes, but pods are not seen: refused'],
  ],
  [
    'changes of pods were missed',
    (cluster: Cluster, claim: () => void) => {
      cluster.miss('too old')
      claim()
    },
    [
      'every change of the pods was seen',
      expect.stringMatching(/^changes of pods until .* were missed: too old$/),
    ],
  ],
])('the verdict of an experiment is UNKNOWN if %s', async (_, happens, [title, saw]) => {
  const cluster = fakeCluster()
  const facts = await cluster.run(
    doing(async (context) => {
      happens(cluster, () => context.claim('two pods stayed ready', { ok: true, saw: 'yes' }))
      return Promise.resolve()
    }),
  )
  const report = runReport(facts)
  expect(report.verdict).toBe('UNKNOWN')
  expect(report.checks).toContainEqual(expect.objectContaining({ title, outcome: 'unknown', saw }))
})

test('a claim made while pods were seen stays, although they were not seen for a while before', async () => {
  const cluster = fakeCluster()
  const facts = await cluster.run(
    doing(async (context) => {
      cluster.lose('refused')
      cluster.back()
      context.claim('two pods are ready', { ok: true, saw: 'yes' })
      return Promise.resolve()
    }),
  )
  expect(runReport(facts).verdict).toBe('PASS')
})

test('a quiet period proves nothing if the API server does not answer at its end', async () => {
  const cluster = fakeCluster()
  const facts = await cluster.run(
    doing(async (context) => {
      cluster.silence()
      await context.stays('nothing happens', 0.2, () => ({ ok: true, saw: 'no change' }))
    }),
  )
  const report = runReport(facts)
  expect(report.verdict).toBe('UNKNOWN')
  expect(report.checks.find(({ title }) => title === 'nothing happens')?.saw).toBe(
    'no change, but pods are not seen: no answer',
  )
})

test('an experiment with a false claim fails and continues', async () => {
  const facts = await fakeCluster().run(
    doing(async (context) => {
      context.claim('the sky is green', { ok: false, saw: 'blue' })
      context.claim('grass is green', { ok: true, saw: 'green' })
      return Promise.resolve()
    }),
  )
  const report = runReport(facts)
  expect(report.verdict).toBe('FAIL')
  expect(report.checks.filter(({ group }) => group === 'claims').map(({ outcome }) => outcome)).toEqual([
    'failed',
    'passed',
  ])
})

test('a claim that does not come true in time fails and ends the experiment', async () => {
  const cluster = fakeCluster()
  const facts = await cluster.run(
    doing(async (context) => {
      await context.until('a pod is ready', 0.2, () => ({ ok: false, saw: 'no pods' }))
      context.claim('never said', { ok: true, saw: '' })
    }),
  )
  const report = runReport(facts)
  expect(report).toMatchObject({ verdict: 'FAIL', interrupted: false })
  const claims = report.checks.filter(({ group }) => group === 'claims')
  expect(claims).toHaveLength(1)
  expect(claims[0]?.saw).toContain('no pods (waited')
  expect(cluster.said).toContain('delete namespace lab-scale --ignore-not-found')
})

test('a change during a period that should be quiet is detected', async () => {
  const cluster = fakeCluster()
  const facts = await cluster.run(
    doing(async (context) => {
      setTimeout(() => {
        cluster.pod('ADDED', 'web-0', false)
      }, 100)
      await context.stays('nothing happens', 5, () => ({
        ok: context.history.changes.length === 0,
        saw: 'nothing',
      }))
    }),
  )
  expect(runReport(facts).verdict).toBe('FAIL')
})

test('an unhealthy lab is not touched, and the verdict is UNKNOWN', async () => {
  const cluster = fakeCluster()
  cluster.unwell()
  const facts = await cluster.run(doing(async () => Promise.reject(new Error('not to be run'))))
  expect(runReport(facts).verdict).toBe('UNKNOWN')
  expect(cluster.said).toEqual([])
})

test('an experiment without claims proves nothing', async () => {
  const facts = await fakeCluster().run(doing(async () => Promise.resolve()))
  expect(runReport(facts).verdict).toBe('UNKNOWN')
})

test('an experiment that throws leaves a report and nothing else', async () => {
  const cluster = fakeCluster()
  await expect(
    cluster.run(
      doing(async (context) => {
        context.claim('so far so good', { ok: true, saw: 'yes' })
        return Promise.reject(new Error('kubectl fell over'))
      }),
    ),
  ).rejects.toThrow('kubectl fell over')
  expect(runReport(cluster.saved.at(-1)!)).toMatchObject({ verdict: 'UNKNOWN', interrupted: true })
  expect(cluster.said).toContain('delete namespace lab-scale --ignore-not-found')
  expect(await readJournal(lab)).toEqual([])
})

test('Ctrl-C removes what the experiment made', async () => {
  const cluster = fakeCluster()
  const running = cluster.run(
    doing(async (context) => {
      await context.until('never', 60, () => ({ ok: false, saw: 'waiting' }))
    }),
  )
  await delay(300)
  cluster.abort.abort()
  await expect(running).rejects.toMatchObject({ code: 'interrupted' })
  expect(cluster.said).toContain('delete namespace lab-scale --ignore-not-found')
  expect(runReport(cluster.saved.at(-1)!).interrupted).toBe(true)
})

test.each([
  [
    'a claim fails',
    async (context: ExperimentContext) => context.until('never', 0.1, () => ({ ok: false, saw: 'no' })),
  ],
  ['it breaks off with an error', async () => Promise.reject(new Error('kubectl fell over'))],
  [
    'Ctrl-C ends it',
    async (context: ExperimentContext, stop: () => void) => {
      stop()
      return context.until('never', 60, () => ({ ok: false, saw: 'waiting' }))
    },
  ],
])('an experiment on what lab up has deployed leaves it deployed when %s', async (_what, ends) => {
  const cluster = fakeCluster()
  const running = cluster.run({
    ...doing(async (context) => {
      // Like an experiment that deletes a StatefulSet and applies it again.
      cluster.unwell()
      await ends(context, () => {
        cluster.abort.abort()
      })
    }),
    workload: true,
  })
  await running.catch(() => undefined)
  expect(cluster.deployed()).toBe(1)
})

test('a lab with too few workers is refused before anything is touched', async () => {
  const cluster = fakeCluster()
  await expect(cluster.run({ ...doing(() => Promise.resolve()), workers: 4 })).rejects.toThrow(
    'scale needs 4 workers, deployment has 3',
  )
  expect(cluster.said).toEqual([])
})

test('a change is reported once, in words', () => {
  const pod = {
    name: 'web-0',
    uid: 'x',
    node: 'worker1',
    phase: 'Running',
    ready: true,
    terminating: false,
    image: 'nginx:1.26',
    restarts: 0,
    address: undefined,
    labels: {},
    unschedulable: undefined,
  }
  const change = (after: object, before: object = {}) =>
    describeChange({ ms: 0, kind: 'changed', pod: { ...pod, ...after } }, { ...pod, ...before })
  expect(change({}, { ready: false })).toBe('web-0 is ready on worker1')
  expect(change({ ready: false })).toBe('web-0 is no longer ready on worker1')
  expect(change({ terminating: true, ready: false })).toBe('web-0 is told to end on worker1')
  expect(change({ restarts: 1, ready: false }, { ready: false })).toBe('web-0 was restarted on worker1')
  expect(change({ restarts: 2, ready: true })).toBe('web-0 was restarted on worker1, and is ready')
  expect(
    change({ unschedulable: 'no room', node: undefined, ready: false }, { ready: false, node: undefined }),
  ).toBe('web-0 fits nowhere: no room')
  expect(change({})).toBeUndefined()
})

/** Members that take turns and keep what they acknowledge; reading back may return something else. */
const memory = (readBack: (there: readonly ReadBack[]) => readonly ReadBack[]) => {
  const there: ReadBack[] = []
  const removed: string[] = []
  const store = (run: string): Store => ({
    medium: 'row',
    connect: async () => {
      let answered = 0
      const server = () => ({ pod: `member-${String(answered++ % 2)}`, node: 'worker1' })
      return Promise.resolve({
        address: '192.168.56.21:30000',
        write: async (seq, content) => {
          there.push({ seq, content })
          return Promise.resolve(server())
        },
        read: async () => Promise.resolve(server()),
        close: () => undefined,
      })
    },
    create: async () => Promise.resolve(),
    readBack: async () => Promise.resolve().then(() => readBack(there)),
    remove: async () => {
      removed.push(run)
      return Promise.resolve()
    },
  })
  return { store, removed }
}

test.each([
  ['all that was acknowledged', (there) => there, 'PASS', []],
  ['all but one', (there) => there.slice(1), 'FAIL', ['LOST']],
  [
    'something else',
    ([first, ...others]) => [{ seq: first?.seq ?? 0, content: 'else' }, ...others],
    'FAIL',
    ['CORRUPT'],
  ],
  [
    'nothing, since nobody answers',
    () => {
      throw new Error('no answer')
    },
    'UNKNOWN',
    [],
  ],
] as readonly [string, (there: readonly ReadBack[]) => readonly ReadBack[], string, readonly string[]][])(
  'a ledger whose members all write, and %s is read back',
  async (_, readBack, verdict, kinds) => {
    const { store, removed } = memory(readBack)
    const report = runReport(
      await fakeCluster().run(
        doing(async (context) => {
          await context.ledger(store, () => delay(600))
        }),
      ),
    )
    expect(report.verdict).toBe(verdict)
    expect(report.data?.findings.map(({ kind }) => kind)).toEqual(kinds)
    expect(report.figures.map(({ title }) => title)).toEqual(['longest time without an acknowledged write'])
    expect(removed).toHaveLength(verdict === 'PASS' ? 1 : 0)
    expect(report.checks.filter(({ group }) => group === 'data').map(({ title }) => title)).toEqual([
      'nothing that was acknowledged is missing',
      'everything is as it was sent',
    ])
    expect(runMarkdown([report])).toContain('writer-1')
    expect(runPage([report])).toContain('<svg')
  },
)

test('a ledger is read back only after every member has ended and others are ready, and a kill meanwhile is undone', async () => {
  const cluster = fakeCluster()
  const there = { now: ['member-0', 'member-1'] }
  const noted: unknown[] = []
  const { store } = memory((written) => {
    cluster.said.push('read back')
    return written
  })
  const scaled = (words: string): void => {
    if (words.endsWith('--replicas=0')) for (const name of there.now) cluster.pod('DELETED', name, false)
    if (words.endsWith('--replicas=2')) for (const name of there.now) cluster.pod('ADDED', name, true)
  }
  const report = runReport(
    await cluster.run(
      doing(async (context) => {
        for (const name of there.now) cluster.pod('ADDED', name, true)
        const say = context.kubectl.bind(context)
        context.kubectl = async (args, options) => {
          noted.push(...(await readJournal(lab)).map(({ undo }) => undo))
          const answer = await say(args, options)
          scaled(args.join(' '))
          return answer
        }
        await context.ledger(store, () => delay(600), {
          workload: 'statefulset/member',
          replicas: 2,
          are: ({ name }) => name.startsWith('member'),
          within: 5,
        })
      }),
    ),
  )
  expect(report.verdict).toBe('PASS')
  expect(report.data?.readBack).toMatchObject({ fromDisk: true })
  expect(cluster.said.filter((words) => /replicas=|^read back/.test(words))).toEqual([
    '--namespace lab-scale scale statefulset/member --replicas=0',
    '--namespace lab-scale scale statefulset/member --replicas=2',
    'read back',
  ])
  expect(noted).toContainEqual({
    do: 'scale',
    machine: 'master',
    workload: 'statefulset/member',
    replicas: 2,
  })
  expect(await readJournal(lab)).toEqual([])
})
