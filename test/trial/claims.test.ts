import { describe, expect, test } from 'vitest'
import {
  endedInOrder,
  endedTogether,
  made,
  neverElsewhere,
  nothingHappened,
  reached,
  startedInOrder,
  startedTogether,
  startUps,
  stayedWithin,
  untouched,
  updatedInOrder,
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

  /** Two go, three come, and so on, as the Deployment's controller does it. */
  const rollout = (story: Story): Story => {
    story.ending('old-0').ending('old-1')
    for (let n = 0; n < 5; n++) story.made(`new-${String(n)}`, { image: 'nginx:1.26' })
    story.ready('new-0').gone('old-0').ready('new-1').gone('old-1')
    return story
  }

  test('holds for one that keeps to its budget', () => {
    const story = ten()
    const from = story.now
    const { ok, saw } = stayedWithin(rollout(story).history, from, budget)
    expect(ok).toBe(true)
    expect(saw).toContain('8 ready at least, 13 there at most')
  })

  test('catches one that dips to 7, though all are there before and after', () => {
    const story = ten()
    const from = story.now
    rollout(story).ending('old-2').ending('old-3').ending('old-4')
    for (let n = 2; n < 5; n++) story.ready(`new-${String(n)}`)
    const { ok, saw } = stayedWithin(story.history, from, budget)
    expect(ok).toBe(false)
    expect(saw).toContain('only 7 ready after')
  })

  test('catches a pod that is not ready for a moment', () => {
    const story = ten()
    const from = story.now
    story.ending('old-0').ending('old-1').changed('old-2', { ready: false }).ready('old-2')
    expect(stayedWithin(story.history, from, budget).ok).toBe(false)
  })

  test('catches a fourteenth pod', () => {
    const story = ten()
    const from = story.now
    for (let n = 0; n < 4; n++) story.made(`new-${String(n)}`)
    const { ok, saw } = stayedWithin(story.history, from, budget)
    expect(ok).toBe(false)
    expect(saw).toContain('14 there after')
  })

  test('looks at the moment with which it begins, too', () => {
    const story = ten()
    story.ending('old-0').ending('old-1').ending('old-2')
    expect(stayedWithin(story.history, story.now, budget).ok).toBe(false)
  })

  test('does not look at what was before', () => {
    const story = ten().ending('old-0').ending('old-1').ending('old-2').there('a').there('b').there('c')
    expect(stayedWithin(story.history, story.now, budget).ok).toBe(true)
  })

  test('a rollout that goes as far as it may is seen to: 8 ready and 5 not yet', () => {
    const story = ten()
    const from = story.now
    expect(reached(rollout(story).history, from, budget)).toEqual({
      ok: true,
      saw: '8 ready and 5 not yet, after 7.0 s',
    })
  })

  test('a rollout of one pod at a time keeps the bounds, and yet fails', () => {
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

  test('a rollout that was as far before the moment it is asked about does not count', () => {
    const story = rollout(ten())
    for (let n = 2; n < 5; n++) story.ready(`new-${String(n)}`)
    expect(reached(story.history, story.now, budget).ok).toBe(false)
  })

  test('its bounds follow from the strategy that the API server has', () => {
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
  ])('another strategy is told from it: %j', (strategy, saw) => {
    expect(quarterAndQuarter(strategy)).toEqual({ ok: false, saw })
  })

  test('only counts the pods that it is about', () => {
    const story = ten()
    const from = story.now
    story.there('stranger', { labels: { app: 'other' } }).ending('stranger')
    const mine = ({ labels }: { labels: Readonly<Record<string, string>> }) => labels['app'] !== 'other'
    expect(stayedWithin(story.history, from, { ready: 10, there: 10 }, mine).ok).toBe(true)
  })
})

describe('pods that stay as they are', () => {
  const pods = (story: Story) => story.pods('a', 'b')

  test('hold', () => {
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
  ])('catches %s', (_what, happen, saw) => {
    const story = new Story().there('a').there('b')
    const before = pods(story)
    const from = story.now
    expect(untouched(happen(story).history, from, before)).toMatchObject({
      ok: false,
      saw: expect.stringContaining(saw),
    })
  })
})

test('so many are made: not one fewer, not one more', () => {
  const story = new Story().there('a')
  const from = story.now
  story.there('b').there('c')
  expect(made(story.history, from, 2).ok).toBe(true)
  expect(made(story.history, from, 1)).toMatchObject({ ok: false, saw: '2 made: b, c; wanted 1' })
  expect(made(story.history, from, 3).ok).toBe(false)
})

describe('made in order', () => {
  const names = ['web-0', 'web-1']

  test('holds', () => {
    expect(startedInOrder(new Story().there('web-0').there('web-1').history, 0, names).ok).toBe(true)
  })

  test('catches a Parallel set', () => {
    const story = new Story().made('web-0').made('web-1').ready('web-0').ready('web-1')
    expect(startedInOrder(story.history, 0, names)).toMatchObject({
      ok: false,
      saw: expect.stringContaining('web-0 was ready only after'),
    })
  })

  test('a pod that was ready under the same name before does not count for the new one', () => {
    const story = new Story().there('web-0').there('web-1')
    const from = story.now
    // Something of it changes, while it is ready still, before it is told to end.
    story.changed('web-0', { labels: { app: 'nginx' } })
    for (const name of names) story.ending(name).gone(name)
    story.made('web-0', { uid: 'new-0' }).made('web-1', { uid: 'new-1' }).ready('web-0').ready('web-1')
    expect(startedInOrder(story.history, from, names)).toMatchObject({
      ok: false,
      saw: expect.stringContaining('web-0 was ready only after'),
    })
    expect(startedTogether(story.history, from, names).ok).toBe(true)
  })

  test('start-ups are added up without what is between them, and not at all where one never ended', () => {
    const story = new Story().there('web-0').there('web-1').ending('web-1').gone('web-1')
    const from = story.now
    story
      .made('web-1', { uid: 'new-1' })
      .ready('web-1')
      .ending('web-0')
      .gone('web-0')
      .made('web-0', { uid: 'new-0' })
    expect(startUps(story.history, from, names)).toBeUndefined()
    story.changed('web-1', { restarts: 0 }).ready('web-0')
    expect(startUps(story.history, from, names)).toBe(1000 + 2000)
  })

  test('catches the wrong order, and one that was never made', () => {
    expect(startedInOrder(new Story().there('web-1').there('web-0').history, 0, names).ok).toBe(false)
    expect(startedInOrder(new Story().there('web-0').history, 0, names)).toMatchObject({
      ok: false,
      saw: 'web-1 was never made',
    })
  })
})

describe('ended in order', () => {
  const names = ['web-4', 'web-3']
  const begin = () => new Story().there('web-3').there('web-4')

  test('holds', () => {
    const story = begin()
    const from = story.now
    story.ending('web-4').gone('web-4').ending('web-3').gone('web-3')
    expect(endedInOrder(story.history, from, names).ok).toBe(true)
  })

  test('catches one that is told to end while the one before it is still there', () => {
    const story = begin()
    const from = story.now
    story.ending('web-4').ending('web-3').gone('web-4').gone('web-3')
    expect(endedInOrder(story.history, from, names)).toMatchObject({
      ok: false,
      saw: expect.stringContaining('web-4 was gone only after'),
    })
  })

  test('catches one that never ends', () => {
    const story = begin()
    const from = story.now
    story.ending('web-4').gone('web-4')
    expect(endedInOrder(story.history, from, names).ok).toBe(false)
  })
})

describe('updated in order', () => {
  const order = ['web-1', 'web-0']
  const begin = () => new Story().there('web-0').there('web-1')
  const replace = (story: Story, name: string, image = 'nginx:1.26'): Story =>
    story
      .ending(name)
      .gone(name)
      .there(name, { uid: `${name}-new`, image })

  test('holds', () => {
    const story = begin()
    const from = story.now
    replace(replace(story, 'web-1'), 'web-0')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26').ok).toBe(true)
  })

  test('catches the order of creation', () => {
    const story = begin()
    const from = story.now
    replace(replace(story, 'web-0'), 'web-1')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26').ok).toBe(false)
  })

  test('catches two at a time', () => {
    const story = begin()
    const from = story.now
    story.ending('web-1').gone('web-1').made('web-1', { uid: 'new', image: 'nginx:1.26' }).ending('web-0')
    story.ready('web-1').gone('web-0').there('web-0', { uid: 'new-0', image: 'nginx:1.26' })
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26')).toMatchObject({
      ok: false,
      saw: expect.stringContaining('before web-1 was ready again'),
    })
  })

  test('holds where the image is the same, and the old pod had another change before it was told to end', () => {
    const story = begin()
    const from = story.now
    story.changed('web-1', { labels: { app: 'nginx' } })
    replace(replace(story, 'web-1', 'nginx:1.22'), 'web-0', 'nginx:1.22')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.22').ok).toBe(true)
  })

  test('catches one that comes back with its old image', () => {
    const story = begin()
    const from = story.now
    replace(replace(story, 'web-1', 'nginx:1.22'), 'web-0')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26')).toMatchObject({
      ok: false,
      saw: 'web-1 was not replaced by a ready one of nginx:1.26',
    })
  })
})

describe('together', () => {
  const names = ['web-0', 'web-1']

  test('started: holds, and catches an ordered set', () => {
    const side = new Story().made('web-0').made('web-1').ready('web-0').ready('web-1')
    expect(startedTogether(side.history, 0, names).ok).toBe(true)
    expect(startedTogether(new Story().there('web-0').there('web-1').history, 0, names).ok).toBe(false)
    expect(startedTogether(new Story().there('web-0').history, 0, names).ok).toBe(false)
  })

  test('ended: holds, and catches an ordered set', () => {
    const side = new Story()
      .there('web-0')
      .there('web-1')
      .ending('web-1')
      .ending('web-0')
      .gone('web-0')
      .gone('web-1')
    expect(endedTogether(side.history, 0, names).ok).toBe(true)
    const line = new Story()
      .there('web-0')
      .there('web-1')
      .ending('web-1')
      .gone('web-1')
      .ending('web-0')
      .gone('web-0')
    expect(endedTogether(line.history, 0, names)).toMatchObject({
      ok: false,
      saw: expect.stringContaining('web-1 was gone before'),
    })
    const left = new Story().there('web-0').there('web-1').ending('web-1')
    expect(endedTogether(left.history, 0, names).ok).toBe(false)
  })
})

test('a bare pod that comes back, here or elsewhere, is caught', () => {
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

test('what happens to one pod is not nothing', () => {
  const story = new Story().there('a', { labels: { app: 'a' } })
  const from = story.now
  expect(nothingHappened(story.history, from).ok).toBe(true)
  story.changed('a', { restarts: 1 })
  expect(nothingHappened(story.history, from)).toMatchObject({ ok: false, saw: 'a changed after 1.0 s' })
  expect(nothingHappened(story.history, from, ({ labels }) => labels['app'] === 'b').ok).toBe(true)
})

test('pods are settled only when the others are gone', () => {
  const story = new Story().there('a', { image: 'nginx:1.26' }).there('b', { image: 'nginx:1.26' }).there('c')
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(false)
  story.ending('c')
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(false)
  story.gone('c')
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(true)
  story.changed('a', { ready: false })
  expect(settled(story.history.pods, 2, 'nginx:1.26').ok).toBe(false)
})

test('two pods are not web-0 and web-1 because they are two', () => {
  const story = new Story().there('web-1').there('web-2')
  expect(complete(story.history.pods, 2)).toMatchObject({ ok: false, saw: 'web-1 ready, web-2 ready' })
  story.ending('web-2').gone('web-2').made('web-0')
  expect(complete(story.history.pods, 2).ok).toBe(false)
  story.ready('web-0')
  expect(complete(story.history.pods, 2).ok).toBe(true)
})

describe('pods that fit no other node than the one that is lost', () => {
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

  test('are as many Terminating and as many Pending', () => {
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
    ['one waits and nobody said why', (story: Story) => waiting(story, 'x', 'y').made('z', { node: '' })],
    [
      'one was not told to end',
      (story: Story) => waiting(story, 'x', 'y', 'z').gone('a').there('a2', { node: 'worker2' }),
    ],
  ])('are not so where %s', (_what, happen) => {
    const there = lost()
    happen(there.story)
    expect(judged(there).ok).toBe(false)
  })
})
