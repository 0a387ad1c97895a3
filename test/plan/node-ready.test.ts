/**
 * When a node counts as ready. Kubernetes and the machine are stand-ins that answer with the table: the moment between
 * the start of a kubelet and its first report is too short to be tested with a real one.
 */
import { beforeAll, describe, expect, test } from 'vitest'
import { type Lab, machineNamed } from '../../src/lab/lab.js'
import { loadLab } from '../../src/registry.js'
import type { Command } from '../../src/machine/sh.js'
import type { Check, Context } from '../../src/context.js'
import { readyNode } from '../../src/steps/nodes.js'

const name = 'worker1'
const started = Date.parse('2026-01-01T12:00:00Z')

interface Now {
  /** The last report of the kubelet to Kubernetes. */
  readonly status?: string
  readonly heard?: string
  /** The boot that Kubernetes knows, while the machine is in its second. */
  readonly boot?: string
  readonly answers?: boolean
}

const contextOf = (lab: Lab, { status = 'True', heard, boot = 'second', answers = true }: Now): Context => {
  const ready = { type: 'Ready', status, reason: 'said', message: 'why', lastHeartbeatTime: heard }
  const node = { metadata: { name }, spec: {}, status: { conditions: [ready], nodeInfo: { bootID: boot } } }
  const run = ({ text }: Command): Promise<string> =>
    answers
      ? Promise.resolve(text.includes('boot_id') ? 'second\n' : `@${String(started / 1000)}\n`)
      : Promise.reject(new Error('no answer'))
  const context: unknown = {
    lab,
    signal: new AbortController().signal,
    machine: () => ({ run }),
    kubectl: { get: () => Promise.resolve({ items: [node] }) },
  }
  return context as Context
}

describe('whether a node is ready', () => {
  let lab: Lab
  let check: Check
  beforeAll(async () => {
    lab = await loadLab('iscsi-ha')
    if (!lab.kubernetes) throw new Error('no Kubernetes')
    const { checks } = readyNode(lab, machineNamed(lab, name), lab.kubernetes)
    check = checks[0]
    expect(check.id).toBe(`${name}-ready`)
  })

  test.each<[what: string, now: Now, ok: boolean, saw: string]>([
    ['reported after its kubelet was started', { heard: '2026-01-01T12:00:03Z' }, true, 'Ready=True, said'],
    ['reported in the second of the start', { heard: '2026-01-01T12:00:00Z' }, true, 'Ready=True, said'],
    [
      'reported before the start',
      { heard: '2026-01-01T11:59:59Z' },
      false,
      'its kubelet has not reported since it was started',
    ],
    ['never reported anything', {}, false, 'its kubelet has not reported since it was started'],
    [
      'reports that it is not ready',
      { status: 'False', heard: '2026-01-01T12:00:03Z' },
      false,
      'Ready=False, said: why',
    ],
    [
      'reported before its machine was switched on',
      { heard: '2026-01-01T12:00:03Z', boot: 'first' },
      false,
      'its kubelet has not reported since worker1 was switched on',
    ],
    [
      'whose machine does not answer',
      { heard: '2026-01-01T12:00:03Z', answers: false },
      false,
      'worker1 does not answer: no answer',
    ],
  ])('a node that %s', async (_, now, ok, saw) => {
    expect(await check.probe(contextOf(lab, now))).toEqual({ ok, saw })
  })
})
