import { expect, test } from 'vitest'
import type { PartRecord } from '../../src/view/events.js'
import { partEnd } from '../../src/view/wording.js'

const ended = (state: PartRecord['state'], elapsed: number | null): string =>
  partEnd({
    type: 'part',
    part: 'etcd',
    title: 'etcd',
    state,
    index: 1,
    total: 1,
    fraction: null,
    remaining: null,
    elapsed,
    note: null,
    log: null,
  })

test.each([
  { state: 'built', elapsed: 144, said: 'built in 2 min 24 s' },
  { state: 'fetched', elapsed: 2, said: 'fetched in 2.0 s' },
  { state: 'cached', elapsed: null, said: 'already there' },
  { state: 'spared', elapsed: null, said: 'not needed' },
  { state: 'failed', elapsed: 2, said: 'failed after 2.0 s' },
] as const)('a part that is $state is shown as: $said', ({ state, elapsed, said }) => {
  expect(ended(state, elapsed)).toBe(said)
})
