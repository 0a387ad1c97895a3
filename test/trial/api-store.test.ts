import { describe, expect, it } from 'vitest'
import { configRead, serverOf } from '../../src/trial/api-store.js'
import { judge } from '../../src/trial/judge.js'
import type { LedgerRecord } from '../../src/trial/ledger.js'

describe('the API server that answered', () => {
  it('the API server that answered is known from its certificate, which names its own machine among general names', () => {
    const names =
      'DNS:kubernetes, DNS:kubernetes.default, DNS:localhost, DNS:master2, IP Address:10.96.0.1, IP Address:192.168.56.10'
    expect(serverOf(names, ['master1', 'master2', 'master3'])).toEqual({
      pod: 'kube-apiserver-master2',
      node: 'master2',
    })
  })

  it('the API server that answered is unknown if the certificate names no control plane', () => {
    expect(serverOf('DNS:kubernetes', ['master1']).node).toBe('an unknown machine')
    expect(serverOf(undefined, ['master1']).node).toBe('an unknown machine')
  })
})

it('the number and the content of a write are read from its ConfigMap', () => {
  expect(configRead({ metadata: { name: 'write-12' }, data: { content: 'x' } })).toEqual({
    seq: 12,
    content: 'x',
  })
  expect(configRead({ metadata: { name: 'somebody-elses' } })).toEqual({ seq: 0, content: '' })
})

describe('ConfigMaps of a ledger', () => {
  let ms = 0
  const write = (seq: number, node: string, answered = true): LedgerRecord[] => {
    const request = {
      at: '2026-11-29T00:00:00.000Z',
      client: 'api-writer',
      operation: 'write',
      medium: 'config',
      seq,
      address: '192.168.56.10:6443',
    } as const
    return [
      { type: 'sent', ...request, ms: ms++, content: `ConfigMap ${String(seq)}` },
      ...(answered
        ? [{ type: 'acknowledged', ...request, ms: ms++, server: { pod: `api-${node}`, node } } as const]
        : []),
    ]
  }
  const there = (...seqs: readonly number[]) =>
    seqs.map((seq) => ({ seq, content: `ConfigMap ${String(seq)}` }))
  const kinds = (records: readonly LedgerRecord[], configs: ReturnType<typeof there> | undefined) =>
    judge(records, undefined, undefined, 'one', configs).findings.map(
      ({ kind, medium }) => `${kind} ${medium}`,
    )

  it('ConfigMaps of a ledger pass if all are there, although several API servers wrote them alternately', () => {
    const records = [...write(1, 'master1'), ...write(2, 'master2'), ...write(3, 'master1')]
    const judged = judge(records, undefined, undefined, 'one', there(1, 2, 3))
    expect(judged.verdict).toBe('PASS')
    expect(judged.tally.config).toEqual({
      sent: 3,
      acknowledged: 3,
      unanswered: 0,
      unansweredButThere: 0,
    })
  })

  it('ConfigMaps of a ledger are LOST if an acknowledged one is missing, but not if an unanswered one is', () => {
    expect(kinds([...write(1, 'master1'), ...write(2, 'master1')], there(1))).toEqual(['LOST config'])
    expect(kinds([...write(1, 'master1'), ...write(2, 'master1', false)], there(1))).toEqual([])
  })

  it('ConfigMaps of a ledger are CORRUPT if one differs from what was sent, or no client sent it', () => {
    expect(kinds(write(1, 'master1'), [{ seq: 1, content: 'other' }])).toEqual(['CORRUPT config'])
    expect(kinds(write(1, 'master1'), there(1, 7))).toEqual(['CORRUPT config'])
  })

  it('ConfigMaps of a ledger are UNKNOWN if they could not be read back, and are not part of a ledger without them', () => {
    const judged = judge(write(1, 'master1'), undefined, undefined, 'one', undefined)
    expect(judged.unknown).toEqual(['the API could not be read back'])
    expect(judge([], [], []).tally).not.toHaveProperty('config')
  })
})
