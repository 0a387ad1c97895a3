import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { forEachAtOnce, inTurns } from '../src/concurrent.js'

/** Work that counts how many of its calls run at the same time. */
const counted = () => {
  const seen = { now: 0, most: 0, done: [] as number[] }
  const work = async (item: number): Promise<void> => {
    seen.now += 1
    seen.most = Math.max(seen.most, seen.now)
    await delay(1)
    seen.now -= 1
    seen.done.push(item)
  }
  return { seen, work }
}

test('parallel work reaches every item, and never more than the limit at once', async () => {
  const { seen, work } = counted()
  await forEachAtOnce([1, 2, 3, 4, 5, 6, 7], 3, work)
  expect(seen.most).toBe(3)
  expect(seen.done.sort()).toEqual([1, 2, 3, 4, 5, 6, 7])
})

test('a source is asked for an item only when there is room to work on it', async () => {
  const { seen, work } = counted()
  let made = 0
  async function* source() {
    for (let item = 1; item <= 6; item++) {
      await delay(0)
      made = item
      yield item
    }
  }
  await forEachAtOnce(source(), 2, async (item) => {
    expect(made - seen.done.length).toBeLessThanOrEqual(2)
    await work(item)
  })
  expect(seen.done).toHaveLength(6)
})

test('the first failure ends parallel work: the others are told, and nothing more begins', async () => {
  const begun: number[] = []
  let told = false
  const failing = forEachAtOnce([1, 2, 3, 4], 2, async (item, stopped) => {
    begun.push(item)
    if (item === 1) throw new Error('first')
    await delay(1000, undefined, { signal: stopped }).catch(() => (told = true))
  })
  await expect(failing).rejects.toThrow('first')
  expect(told).toBe(true)
  expect(begun).toEqual([1, 2])
})

test('an error of the source ends parallel work', async () => {
  async function* source() {
    yield await Promise.resolve(1)
    throw new Error('the file became shorter')
  }
  await expect(forEachAtOnce(source(), 2, async () => undefined)).rejects.toThrow('the file became shorter')
})

test('queued work begins in the order of arrival, and never more than the limit at once', async () => {
  const { seen, work } = counted()
  const inTurn = inTurns(2)
  const failed = inTurn(() => Promise.reject(new Error('this one')))
  const all = [1, 2, 3, 4, 5].map((item) => inTurn(() => work(item)))
  await expect(failed).rejects.toThrow('this one')
  await Promise.all(all)
  expect(seen.most).toBe(2)
  expect(seen.done).toEqual([1, 2, 3, 4, 5])
})
