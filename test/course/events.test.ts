/** Who replaced the pods: Events as Kubernetes 1.36 writes them, and Events that must not be mistaken for them. */
import { describe, expect, test } from 'vitest'
import { type EventObject, eventSeen, revivedInTurn, saidNotReady } from '../../src/course/events.js'
import { Story } from '../trial/story.js'

const at = '2026-01-01T00:01:00Z'

const event = (
  reason: string,
  component: string,
  about: { kind: string; name: string; uid?: string },
  message: string,
  host?: string,
): EventObject => ({
  reason,
  message,
  source: { component, ...(host === undefined ? {} : { host }) },
  involvedObject: about,
  lastTimestamp: at,
  metadata: {},
})

const pod = (name: string) => ({ kind: 'Pod', name, uid: name })
/** The eviction of tainted nodes names only the pod. */
const nameless = (name: string) => ({ kind: 'Pod', name })

const story = new Story()
  .there('old-1', { node: 'worker1' })
  .there('kept', { node: 'worker2' })
  .ending('old-1')
  .there('new-1', { node: 'worker2' })
const named = (name: string) => story.pods(name)
const there = { lost: named('old-1'), fresh: named('new-1'), kept: named('kept') }

const right: readonly EventObject[] = [
  event(
    'TaintManagerEviction',
    'taint-eviction-controller',
    nameless('old-1'),
    'Marking for deletion Pod x/old-1',
  ),
  event(
    'SuccessfulCreate',
    'replicaset-controller',
    { kind: 'ReplicaSet', name: 'replicaset-exp', uid: 'set' },
    'Created pod: new-1',
  ),
  // The scheduler uses the newer kind of recorder.
  {
    reason: 'Scheduled',
    message: 'Successfully assigned x/new-1 to worker2',
    reportingComponent: 'default-scheduler',
    reportingInstance: 'default-scheduler-master',
    source: {},
    involvedObject: pod('new-1'),
    eventTime: at,
    lastTimestamp: null,
    metadata: {},
  },
  event('Started', 'kubelet', pod('new-1'), 'Container started', 'worker2'),
  event('Started', 'kubelet', pod('kept'), 'Container started', 'worker2'),
]

const failing = (events: readonly EventObject[], pods = there): readonly string[] =>
  revivedInTurn(events.map(eventSeen), pods)
    .filter(({ ok }) => !ok)
    .map(({ title }) => title)

const without = (index: number): readonly EventObject[] => right.filter((_, other) => other !== index)
const instead = (index: number, other: EventObject): readonly EventObject[] => right.with(index, other)

describe('who recreated the pods', () => {
  test('the Events of four components tell who recreated the pods', () => {
    expect(failing(right)).toEqual([])
    expect(revivedInTurn(right.map(eventSeen), there).map(({ saw }) => saw)).toEqual([
      'taint-eviction-controller: TaintManagerEviction: Marking for deletion Pod x/old-1',
      'replicaset-controller: SuccessfulCreate: Created pod: new-1',
      'default-scheduler: Scheduled: Successfully assigned x/new-1 to worker2',
      'kubelet of worker2: Started: Container started',
      'none about kept',
    ])
  })

  test.each([
    ['nobody marked the lost pod for deletion', without(0), 'marked for deletion by the eviction'],
    [
      'somebody else marked it for deletion',
      instead(
        0,
        event('TaintManagerEviction', 'kubectl', nameless('old-1'), 'Marking for deletion Pod x/old-1'),
      ),
      'marked for deletion by the eviction',
    ],
    [
      'its deletion was called off',
      instead(
        0,
        event(
          'TaintManagerEviction',
          'taint-eviction-controller',
          nameless('old-1'),
          'Cancelling deletion of Pod x/old-1',
        ),
      ),
      'marked for deletion by the eviction',
    ],
    ['no Event says that it was made', without(1), "made by the ReplicaSet's controller"],
    [
      'the controller made a pod whose name only begins the same way',
      instead(
        1,
        event(
          'SuccessfulCreate',
          'replicaset-controller',
          { kind: 'ReplicaSet', name: 'replicaset-exp', uid: 'set' },
          'Created pod: new-12',
        ),
      ),
      "made by the ReplicaSet's controller",
    ],
    ['no Event says that it was scheduled', without(2), 'the scheduler gave each of them its node'],
    [
      'it was scheduled to another node than it is on',
      instead(
        2,
        event('Scheduled', 'default-scheduler', pod('new-1'), 'Successfully assigned x/new-1 to worker1'),
      ),
      'the scheduler gave each of them its node',
    ],
    ['it was never started', without(3), 'kubelet started each of them'],
    [
      "another node's kubelet started it",
      instead(3, event('Started', 'kubelet', pod('new-1'), 'Container started', 'worker1')),
      'kubelet started each of them',
    ],
    [
      'a pod of another node was evicted as well',
      [
        ...right,
        event(
          'TaintManagerEviction',
          'taint-eviction-controller',
          nameless('kept'),
          'Marking for deletion Pod x/kept',
        ),
      ],
      'nobody marked a pod of another node',
    ],
    [
      'Events are about an earlier pod of that name',
      instead(
        3,
        event('Started', 'kubelet', { ...pod('new-1'), uid: 'earlier' }, 'Container started', 'worker2'),
      ),
      'kubelet started each of them',
    ],
  ])('the Events do not tell who recreated the pods when %s', (_what, events, title) => {
    expect(failing(events)).toEqual([expect.stringContaining(title)])
  })

  test('no one recreated the pods when there are none', () => {
    expect(failing(right, { lost: [], fresh: [], kept: [] })).toHaveLength(4)
  })
})

describe('a node that is not ready', () => {
  const node = { kind: 'Node', name: 'worker1', uid: 'worker1' }
  const since = Date.parse('2026-01-01T00:00:58Z')
  const said = (one: EventObject) => saidNotReady([eventSeen(one)], 'worker1', since).ok
  const notReady = event('NodeNotReady', 'node-controller', node, 'Node worker1 status is now: NodeNotReady')

  test("the node controller's Event counts as evidence", () => {
    expect(said(notReady)).toBe(true)
  })

  test.each([
    ['about another node', { ...notReady, involvedObject: { ...node, name: 'worker2' } }],
    ['in an earlier loss', { ...notReady, lastTimestamp: '2026-01-01T00:00:30Z' }],
    [
      'by its kubelet, which starts',
      event('NodeNotReady', 'kubelet', node, 'status is now: NodeNotReady', 'worker1'),
    ],
    ['about its return', event('NodeReady', 'node-controller', node, 'status is now: NodeReady')],
    ['about a pod of it', { ...notReady, involvedObject: { kind: 'Pod', name: 'worker1' } }],
    ['without a time', { ...notReady, lastTimestamp: null }],
  ])('an Event %s does not count as evidence', (_what, one) => {
    expect(said(one)).toBe(false)
  })
})
