/** The claims about the order in which pods are made, ended and updated. */
import { describe, expect, test } from 'vitest'
import {
  endedInOrder,
  endedTogether,
  startedInOrder,
  startedTogether,
  startUps,
  updatedInOrder,
} from '../../src/trial/claims.js'
import { Story } from './story.js'

describe('pods that are created in order', () => {
  const names = ['web-0', 'web-1']

  test('the claim holds for an ordered set', () => {
    expect(startedInOrder(new Story().there('web-0').there('web-1').history, 0, names).ok).toBe(true)
  })

  test('a set with parallel pod management fails the claim', () => {
    const story = new Story().made('web-0').made('web-1').ready('web-0').ready('web-1')
    expect(startedInOrder(story.history, 0, names)).toMatchObject({
      ok: false,
      saw: expect.stringContaining('web-0 was ready only after'),
    })
  })

  test('an earlier ready pod with the same name does not count for the new one', () => {
    const story = new Story().there('web-0').there('web-1')
    const from = story.now
    // Something about it changes while it is still ready, before it is told to end.
    story.changed('web-0', { labels: { app: 'nginx' } })
    for (const name of names) story.ending(name).gone(name)
    story.made('web-0', { uid: 'new-0' }).made('web-1', { uid: 'new-1' }).ready('web-0').ready('web-1')
    expect(startedInOrder(story.history, from, names)).toMatchObject({
      ok: false,
      saw: expect.stringContaining('web-0 was ready only after'),
    })
    expect(startedTogether(story.history, from, names).ok).toBe(true)
  })

  test('start-up times are added without the gaps between them, and not at all when one never ended', () => {
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

  test('a wrong order fails the claim, and so does a pod that was never created', () => {
    expect(startedInOrder(new Story().there('web-1').there('web-0').history, 0, names).ok).toBe(false)
    expect(startedInOrder(new Story().there('web-0').history, 0, names)).toMatchObject({
      ok: false,
      saw: 'web-1 was never made',
    })
  })
})

describe('pods that are terminated in order', () => {
  const names = ['web-4', 'web-3']
  const begin = () => new Story().there('web-3').there('web-4')

  test('the claim holds for a set in reverse order', () => {
    const story = begin()
    const from = story.now
    story.ending('web-4').gone('web-4').ending('web-3').gone('web-3')
    expect(endedInOrder(story.history, from, names).ok).toBe(true)
  })

  test('a pod that is terminated before the previous one is gone fails the claim', () => {
    const story = begin()
    const from = story.now
    story.ending('web-4').ending('web-3').gone('web-4').gone('web-3')
    expect(endedInOrder(story.history, from, names)).toMatchObject({
      ok: false,
      saw: expect.stringContaining('web-4 was gone only after'),
    })
  })

  test('a pod that never terminates fails the claim', () => {
    const story = begin()
    const from = story.now
    story.ending('web-4').gone('web-4')
    expect(endedInOrder(story.history, from, names).ok).toBe(false)
  })
})

describe('pods that are updated in order', () => {
  const order = ['web-1', 'web-0']
  const begin = () => new Story().there('web-0').there('web-1')
  const replace = (story: Story, name: string, image = 'nginx:1.26'): Story =>
    story
      .ending(name)
      .gone(name)
      .there(name, { uid: `${name}-new`, image })

  test('the claim holds for an update in reverse order', () => {
    const story = begin()
    const from = story.now
    replace(replace(story, 'web-1'), 'web-0')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26').ok).toBe(true)
  })

  test('an update in the order of creation fails the claim', () => {
    const story = begin()
    const from = story.now
    replace(replace(story, 'web-0'), 'web-1')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26').ok).toBe(false)
  })

  test('two pods updated at a time fail the claim', () => {
    const story = begin()
    const from = story.now
    story.ending('web-1').gone('web-1').made('web-1', { uid: 'new', image: 'nginx:1.26' }).ending('web-0')
    story.ready('web-1').gone('web-0').there('web-0', { uid: 'new-0', image: 'nginx:1.26' })
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26')).toMatchObject({
      ok: false,
      saw: expect.stringContaining('before web-1 was ready again'),
    })
  })

  test('the claim holds when the image is unchanged and the old pod changed before its termination', () => {
    const story = begin()
    const from = story.now
    story.changed('web-1', { labels: { app: 'nginx' } })
    replace(replace(story, 'web-1', 'nginx:1.22'), 'web-0', 'nginx:1.22')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.22').ok).toBe(true)
  })

  test('a pod that returns with its old image fails the claim', () => {
    const story = begin()
    const from = story.now
    replace(replace(story, 'web-1', 'nginx:1.22'), 'web-0')
    expect(updatedInOrder(story.history, from, order, 'nginx:1.26')).toMatchObject({
      ok: false,
      saw: 'web-1 was not replaced by a ready one of nginx:1.26',
    })
  })
})

describe('pods in parallel', () => {
  const names = ['web-0', 'web-1']

  test('the claim holds for pods started in parallel and fails for an ordered set', () => {
    const side = new Story().made('web-0').made('web-1').ready('web-0').ready('web-1')
    expect(startedTogether(side.history, 0, names).ok).toBe(true)
    expect(startedTogether(new Story().there('web-0').there('web-1').history, 0, names).ok).toBe(false)
    expect(startedTogether(new Story().there('web-0').history, 0, names).ok).toBe(false)
  })

  test('the claim holds for pods terminated in parallel and fails for an ordered set', () => {
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
