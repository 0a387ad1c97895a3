/** A drain that a disruption budget refuses, and one that fails for another reason. */
import { describe, expect, test } from 'vitest'
import {
  allows,
  type DisruptionBudget,
  drained,
  type DrainSeen,
  refusedByBudget,
} from '../../src/course/maintenance.js'
import { givenToZookeeper } from '../../src/course/zookeeper.js'
import { Story } from '../trial/story.js'

const [zk2] = new Story().there('zk-2', { node: 'worker3' }).pods('zk-2')
const before = zk2!

const budget = (disruptionsAllowed: number, currentHealthy = 2): DisruptionBudget => ({
  spec: { maxUnavailable: 1 },
  status: { disruptionsAllowed, currentHealthy, desiredHealthy: 2, expectedPods: 3 },
})

const refusal =
  "kubectl create --raw /api/v1/namespaces/default/pods/zk-2/eviction -f -: Error from server (TooManyRequests): Cannot evict pod as it would violate the pod's disruption budget."
const gaveUp: DrainSeen = {
  said: 'error when evicting pods/"zk-2" -n "default": global timeout reached: 20s',
  cordoned: true,
  left: [before],
}
const facts = { answer: refusal, budget: budget(0), before }

describe('a drain that the disruption budget refuses', () => {
  test('the claim holds with the words of the API server and the numbers of the budget', () => {
    expect(refusedByBudget(gaveUp, facts)).toEqual({
      ok: true,
      saw: "Cannot evict pod as it would violate the pod's disruption budget; 0 disruptions allowed: 2 of 3 healthy, 2 required; zk-2 ready; the node stays cordoned",
    })
  })

  test.each([
    ['completed', { ...gaveUp, said: undefined }, facts, 'the drain completed'],
    [
      'timed out, while the pod may well be evicted',
      gaveUp,
      { ...facts, answer: undefined },
      'the API server says: yes',
    ],
    [
      'failed because the API server is too busy',
      gaveUp,
      { ...facts, answer: 'Error from server (TooManyRequests): etcdserver: too many requests' },
      'etcdserver: too many requests',
    ],
    [
      'failed because there was no answer',
      { ...gaveUp, said: 'Unable to connect to the server: net/http: TLS handshake timeout' },
      { ...facts, answer: 'Unable to connect to the server: net/http: TLS handshake timeout' },
      'TLS handshake timeout',
    ],
    [
      'failed because evictions are forbidden',
      gaveUp,
      { ...facts, answer: 'Error from server (Forbidden): pods "zk-2" is forbidden' },
      'forbidden',
    ],
    [
      'timed out, with a budget that allows one',
      gaveUp,
      { ...facts, budget: budget(1, 3) },
      '1 disruptions allowed',
    ],
    [
      'is refused because the ensemble is broken',
      gaveUp,
      { ...facts, budget: budget(0, 1) },
      'for another reason',
    ],
    [
      'is refused because the pods have not been counted yet',
      gaveUp,
      {
        ...facts,
        budget: {
          ...budget(0),
          status: { disruptionsAllowed: 0, currentHealthy: 0, desiredHealthy: 0, expectedPods: 0 },
        },
      },
      'for another reason',
    ],
    ['removed the pod anyway', { ...gaveUp, left: [] }, facts, 'zk-2 is gone'],
    [
      'removed the pod, and another has its name',
      { ...gaveUp, left: [{ ...before, uid: 'other' }] },
      facts,
      'zk-2 is gone',
    ],
    ['left it not ready', { ...gaveUp, left: [{ ...before, ready: false }] }, facts, 'zk-2 is not as it was'],
    ['had it restarted', { ...gaveUp, left: [{ ...before, restarts: 1 }] }, facts, 'zk-2 is not as it was'],
    ['left the node open to pods', { ...gaveUp, cordoned: false }, facts, 'the node is not cordoned'],
  ])('the claim fails when it %s', (_what, seen, known, saw) => {
    expect(refusedByBudget(seen, known)).toEqual({ ok: false, saw: expect.stringContaining(saw) as string })
  })
})

describe('a drain that finishes', () => {
  const done: DrainSeen = { said: undefined, cordoned: true, left: [] }

  test('the claim holds', () => {
    expect(drained(done)).toEqual({ ok: true, saw: 'kubectl: drained; cordoned; no server on it' })
  })

  test.each([
    ['gave up', { ...done, said: 'global timeout reached: 90s' }],
    ['left a server there', { ...done, left: [before] }],
    ['left the node open to pods', { ...done, cordoned: false }],
  ])('the claim fails when it %s', (_what, seen) => {
    expect(drained(seen).ok).toBe(false)
  })
})

test('a disruption budget is compared by its exact numbers', () => {
  expect(allows(budget(1, 3), 1).ok).toBe(true)
  expect(allows(budget(0), 1).ok).toBe(false)
})

describe('the group of a volume', () => {
  const given = 'drwxrwsrwx root zookeeper\ndrwxr-sr-x zookeeper zookeeper\n'

  test('files made in a volume belong to the group of fsGroup', () => {
    expect(givenToZookeeper(given).ok).toBe(true)
  })

  test.each([
    ['a hostPath, which is not given to any group', 'drwxrwxrwx root root\ndrwxr-xr-x zookeeper zookeeper'],
    ['a group without setgid', 'drwxrwxrwx root zookeeper\ndrwxr-xr-x zookeeper zookeeper'],
    ['a volume of another group', 'drwxrwsrwx root root\ndrwxr-sr-x zookeeper root'],
    ['a folder that is not there', 'drwxrwsrwx root zookeeper'],
    ['nothing', ''],
  ])('the group of %s is rejected', (_what, said) => {
    expect(givenToZookeeper(said).ok).toBe(false)
  })
})
