import { describe, expect, test } from 'vitest'
import {
  made,
  neverElsewhere,
  nothingHappened,
  reached,
  stayedWithin,
  untouched,
  waitForTheirNode,
} from '../../src/trial/claims.js'
import { budgetOf, quarterAndQuarter, settled } from '../../src/course/deployment.js'
import { complete } from '../../src/course/web.js'
import { Story } from './story.js'

/** Ten ready pods, old-0 to old-9. */
const ten = (): Story => {
  const story = new Story()
  for (let n = 0; n < 10; n++) story.there(`old-${String(n)}`)
  return story
}

describe('a rollout of 10 with 25 % and 25 %', () => {
  const budget = { ready: 8, there: 13 }

  /** Two pods end, three start, and so on, as the Deployment's controller does it. */
  const rollout = (story: Story): Story => {
    story.ending('old-0').ending('old-1')
    for (let n = 0; n < 5; n++) story.made(`new-${String(n)}`, { image: 'nginx:1.26' })
    story.ready('new-0').gone('old-0').ready('new-1').gone('old-1')
    return story
  }

  test('the claim holds for a rollout that stays within its bounds', () => {
    const story = ten()
    const from = story.now
    const { ok, saw } = stayedWithin(rollout(story).history, from, budget)
    expect(ok).toBe(true)
    expect(saw).toContain('8 ready at least, 13 there at most')
  })

  test('a moment with 7 pods fails the claim, although all are there before and after', () => {
    const story = ten()
    const from = story.now
    rollout(story).ending('old-2').ending('old-3').ending('old-4')
    for (let n = 2; n < 5; n++) story.ready(`new-${String(n)}`)
    const { ok, saw } = stayedWithin(story.history, from, budget)
    expect(ok).toBe(false)
    expect(saw).toContain('only 7 ready after')
  })

  test('a pod that is not ready for a moment fails the claim', () => {
    const story = ten()
    const from = story.now
    story.ending('old-0').ending('old-1').changed('old-2', { ready: false }).ready('old-2')
    expect(stayedWithin(story.history, from, budget).ok).toBe(false)
  })

  test('a fourteenth pod fails the claim', () => {
    const story = ten()
    const from = story.now
    for (let n = 0; n < 4; n++) story.made(`new-${String(n)}`)
    const { ok, saw } = stayedWithin(story.history, from, budget)
    expect(ok).toBe(false)
    expect(saw).toContain('14 there after')
  })

  test('a fourteenth pod is no failure when a pod is told to end a moment later, as ReplicaSets do on a busy host', () => {
    const story = ten()
    const from = story.now
    for (let n = 0; n < 4; n++) story.made(`new-${String(n)}`)
    story.ending('old-0')
    expect(stayedWithin(story.history, from, budget)).toMatchObject({ ok: true })
  })

  test('a fourteenth pod that stays for more than two seconds fails the claim, although a pod is told to end then', () => {
    const story = ten()
    const from = story.now
    for (let n = 0; n < 4; n++) story.made(`new-${String(n)}`)
    story.ready('new-0').ready('new-1').ending('old-0')
    expect(stayedWithin(story.history, from, budget).saw).toContain('14 there after')
  })

  test('the first moment of the period counts', () => {
    const story = ten()
    story.ending('old-0').ending('old-1').ending('old-2')
    expect(stayedWithin(story.history, story.now, budget).ok).toBe(false)
  })

  test('moments before the period do not count', () => {
    const story = ten().ending('old-0').ending('old-1').ending('old-2').there('a').there('b').there('c')
    expect(stayedWithin(story.history, story.now, budget).ok).toBe(true)
  })

  test('a rollout is seen to reach its bounds with 8 ready and 5 unready pods', () => {
    const story = ten()
    const from = story.now
    expect(reached(rollout(story).history, from, budget)).toEqual({
      ok: true,
      saw: '8 ready and 5 not yet, after 7.0 s',
    })
  })

  test('a rollout of one pod at a time stays within the bounds but does not reach them', () => {
    const story = ten()
    const from = story.now
    for (let n = 0; n < 10; n++)
      story
        .there(`new-${String(n)}`, { image: 'nginx:1.26' })
        .ending(`old-${String(n)}`)
        .gone(`old-${String(n)}`)
    expect(stayedWithin(story.history, from, budget).ok).toBe(true)
    expect(reached(story.history, from, budget)).toEqual({
      ok: false,
      saw: '8 ready of 13 at no moment: never fewer than 10 ready, never more than 11 there',
    })
  })

  test('a rollout that reached its bounds before the period does not count', () => {
    const story = rollout(ten())
    for (let n = 2; n < 5; n++) story.ready(`new-${String(n)}`)
    expect(reached(story.history, story.now, budget).ok).toBe(false)
  })

  test('the bounds follow from the strategy in the API server', () => {
    const strategy = { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '25%', maxSurge: '25%' } }
    expect(quarterAndQuarter(strategy).ok).toBe(true)
    expect(budgetOf(strategy, 10)).toEqual(budget)
    expect(budgetOf({ ...strategy, rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } }, 10)).toEqual({
      ready: 9,
      there: 10,
    })
  })

  test.each([
    [{ type: 'Recreate' }, 'Recreate, nothing max unavailable, nothing max surge'],
    [
      { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      'RollingUpdate, 0 max unavailable, 1 max surge',
    ],
    [{}, 'no strategy, nothing max unavailable, nothing max surge'],
  ])('a different strategy is detected: %j', (strategy, saw) => {
    expect(quarterAndQuarter(strategy)).toEqual({ ok: false, saw })
  })

  test('only the pods of the workload count', () => {
    const story = ten()
    const from = story.now
    story.there('stranger', { labels: { app: 'other' } }).ending('stranger')
    const mine = ({ labels }: { labels: Readonly<Record<string, string>> }) => labels['app'] !== 'other'
    expect(stayedWithin(story.history, from, { ready: 10, there: 10 }, mine).ok).toBe(true)
  })
})

describe('pods that do not change', () => {
  const pods = (story: Story) => story.pods('a', 'b')

  test('the claim holds when nothing changes', () => {
    const story = new Story().there('a').there('b')
    const before = pods(story)
    expect(untouched(story.there('c').history, story.now, before).ok).toBe(true)
  })

  test.each([
    ['one that goes', (story: Story) => story.gone('b'), 'b is gone'],
    ['one that is told to end', (story: Story) => story.ending('b'), 'b is told to end'],
    [
      'one that was not ready for a moment',
      (story: Story) => story.changed('b', { ready: false }).ready('b'),
      'b is not ready',
    ],
    ['one that was restarted', (story: Story) => story.changed('b', { restarts: 1 }), 'b was restarted'],
    [
      'one that was replaced under its name',
      (story: Story) => story.gone('b').there('b', { uid: 'other' }),
      'b is gone',
    ],
  ])('the claim fails for %s', (_what, happen, saw) => {
    const story = new Story().there('a').there('b')
    const before = pods(story)
    const from = story.now
    expect(untouched(happen(story).history, from, before)).toMatchObject({
      ok: false,
      saw: expect.stringContaining(saw),
    })
  })
})

test('the number of created pods is compared exactly', () => {
  const story = new Story().there('a')
  const from = story.now
  story.there('b').there('c')
  expect(made(story.history, from, 2).ok).toBe(true)
  expect(made(story.history, from, 1)).toMatchObject({ ok: false, saw: '2 made: b, c; expected 1' })
  expect(made(story.history, from, 3).ok).toBe(false)
})

test('a bare pod that comes back on any node fails the claim', () => {
  const story = new Story().there('sample-pod', { node: 'worker1' })
  const [before] = story.pods('sample-pod')
  const from = story.now
  story.ending('sample-pod').gone('sample-pod')
  expect(neverElsewhere(story.history, from, before!).ok).toBe(true)
  story.there('sample-pod', { uid: 'other', node: 'worker2' })
  expect(neverElsewhere(story.history, from, before!)).toMatchObject({
    ok: false,
    saw: expect.stringContaining('worker2'),
  })
})

test('a change of one pod counts as a change', () => {
  const story = new Story().there('a', { labels: { app: 'a' } })
  const from = story.now
  expect(nothingHappened(story.history, from).ok).toBe(true)
  story.changed('a', { restarts: 1 })
  expect(nothingHappened(story.history, from)).toMatchObject({ ok: false, saw: 'a changed after 1.0 s' })
  expect(nothingHappened(story.history, from, ({ labels }) => labels['app'] === 'b').ok).toBe(true)
})

test('pods count as settled only when the others are gone', () => {
  const story = new Story().there('a', { image: 'nginx:1.26' }).there('b', { image: 'nginx:1.26' }).there('c')
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(false)
  story.ending('c')
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(false)
  story.gone('c')
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(true)
  story.changed('a', { ready: false })
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(false)
})

test('two pods do not count as web-0 and web-1 merely because there are two', () => {
  const story = new Story().there('web-1').there('web-2')
  expect(complete(story.history.pods, 2)).toMatchObject({ ok: false, saw: 'web-1 ready, web-2 ready' })
  story.ending('web-2').gone('web-2').made('web-0')
  expect(complete(story.history.pods, 2).ok).toBe(false)
  story.ready('web-0')
  expect(complete(story.history.pods, 2).ok).toBe(true)
})

describe('pods that fit on no node but the lost one', () => {
  const names = ['a', 'b', 'c']
  const why =
    "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s)."
  const lost = () => {
    const story = new Story()
    for (const name of names) story.there(name, { node: 'worker2' })
    const before = story.pods(...names)
    for (const name of names) story.ending(name)
    return { story, before }
  }
  const waiting = (story: Story, ...fresh: readonly string[]): Story => {
    for (const name of fresh) story.made(name, { node: '', why })
    return story
  }
  const judged = ({ story, before }: ReturnType<typeof lost>) =>
    waitForTheirNode(story.history.pods, 'worker2', before)

  test('the claim holds with as many Terminating as Pending pods', () => {
    const there = lost()
    waiting(there.story, 'x', 'y', 'z')
    expect(judged(there)).toMatchObject({
      ok: true,
      saw: expect.stringContaining(`Terminating: a, b, c; x Pending on no node (${why})`),
    })
  })

  test.each([
    ['only two of three wait', (story: Story) => waiting(story, 'x', 'y')],
    ['a fourth waits', (story: Story) => waiting(story, 'x', 'y', 'z', 'w')],
    ['a dead one is gone already', (story: Story) => waiting(story, 'x', 'y', 'z').gone('a')],
    [
      'one of them runs elsewhere',
      (story: Story) => waiting(story, 'x', 'y').there('z', { node: 'worker1' }),
    ],
    ['one was given another node', (story: Story) => waiting(story, 'x', 'y').made('z', { node: 'worker1' })],
    [
      'one waits for another reason',
      (story: Story) =>
        waiting(story, 'x', 'y').made('z', {
          node: '',
          why: '0/3 nodes are available: 3 Insufficient memory.',
        }),
    ],
    ['one waits and no Event says why', (story: Story) => waiting(story, 'x', 'y').made('z', { node: '' })],
    [
      'one was not told to end',
      (story: Story) => waiting(story, 'x', 'y', 'z').gone('a').there('a2', { node: 'worker2' }),
    ],
  ])('the claim fails when %s', (_what, happen) => {
    const there = lost()
    happen(there.story)
    expect(judged(there).ok).toBe(false)
  })
})
