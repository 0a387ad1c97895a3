/** Which workers count as lost by what Kubernetes says, with the agent's clock in the test's hands. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Workers } from '../../src/fencing/lost.js'
import type { Failover } from '../../src/lab/lab.js'
import type { WatchEvent } from '../../src/machine/kubectl.js'
import type { MachineState } from '../../src/provider/provider.js'

let now = 0
beforeEach(() => {
  now = 1_000_000
  vi.spyOn(performance, 'now').mockImplementation(() => now)
})
afterEach(() => {
  vi.restoreAllMocks()
})

const on: readonly MachineState[] = ['worker1', 'worker2'].map((name) => ({
  name,
  status: 'running',
  detail: 'run 1',
}))

/** Two workers that are ready. */
const watched = (failover: Failover = 'fast') => {
  const workers = new Workers(['worker1', 'worker2'], failover)
  const hear = (
    name: string,
    ready: boolean | 'says that it is not',
    turned = '2026-11-21T15:00:00Z',
  ): void =>
    workers.takeNode({
      type: 'MODIFIED',
      object: {
        metadata: { name },
        status: {
          conditions: [
            {
              type: 'Ready',
              status: ready === true ? 'True' : ready ? 'False' : 'Unknown',
              lastTransitionTime: turned,
            },
          ],
          nodeInfo: { bootID: '1' },
        },
      },
    } as unknown as WatchEvent)
  const lost = (states = on): readonly string[] => [...workers.lostAmong(states, new Map()).keys()]
  workers.follow(on)
  hear('worker1', true)
  hear('worker2', true)
  expect(lost()).toEqual([])
  return { hear, lost }
}

describe.each([
  ['fast', 4000],
  ['default', 16_000],
] as const)('with failover: %s', (failover, apart) => {
  test('a silent worker is lost only after a time in which another one was ready, since an API server that hears nobody loses them one by one', () => {
    const { hear, lost } = watched(failover)
    hear('worker1', false)
    now += apart - 1
    expect(lost()).toEqual([])
    now += 2
    expect(lost()).toEqual(['worker1'])
  })

  test('no worker is lost if all fall silent one after the other, and are heard again one after the other', () => {
    const { hear, lost } = watched(failover)
    hear('worker1', false)
    now += apart - 1000
    expect(lost()).toEqual([])
    hear('worker2', false)
    now += 60_000
    expect(lost()).toEqual([])
    hear('worker2', true, '2026-11-21T15:01:00Z')
    now += 10_000
    expect(lost()).toEqual([])
    hear('worker1', true, '2026-11-21T15:01:10Z')
    expect(lost()).toEqual([])
  })
})

test('a worker that stays silent is lost 30 s after another one is heard again', () => {
  const { hear, lost } = watched()
  hear('worker1', false)
  hear('worker2', false)
  now += 60_000
  hear('worker2', true, '2026-11-21T15:01:00Z')
  now += 30_000
  expect(lost()).toEqual([])
  now += 1
  expect(lost()).toEqual(['worker1'])
})

test('a worker that was silent while nobody could watch is known by the time at which Kubernetes says that it became ready', () => {
  const { hear, lost } = watched()
  now += 60_000
  hear('worker1', false)
  hear('worker2', true, '2026-11-21T15:01:00Z')
  now += 10_000
  expect(lost()).toEqual([])
})

test('a kubelet that reports it is not ready is believed only after 15 s', () => {
  const { hear, lost } = watched()
  hear('worker1', 'says that it is not')
  now += 14_000
  // Its runtime was away and is back: the report was an old one.
  hear('worker1', true)
  expect(lost()).toEqual([])
  hear('worker1', 'says that it is not')
  now += 14_000
  // It reports the same in other words: that does not start the time again.
  hear('worker1', 'says that it is not')
  expect(lost()).toEqual([])
  now += 1001
  expect(lost()).toEqual(['worker1'])
})

test('a worker that reports it is not ready does not count as able to take over', () => {
  const { hear, lost } = watched()
  hear('worker2', 'says that it is not')
  hear('worker1', false)
  now += 60_000
  expect(lost()).toEqual([])
})

test('a worker that is off is lost at once', () => {
  const { lost } = watched()
  const off = on.map((state) => (state.name === 'worker1' ? { ...state, status: 'stopped' as const } : state))
  expect(lost(off)).toEqual(['worker1'])
})
