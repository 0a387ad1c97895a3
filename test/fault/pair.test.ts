/** What faults do to two machines that serve one target. */
import { describe, expect, it } from 'vitest'
import type { Context } from '../../src/context.js'
import { partition } from '../../src/fault/partition.js'
import type { FaultSpec } from '../../src/lab/lab.js'
import { loadLab } from '../../src/registry.js'

const lab = await loadLab('hacmp')

/** The rules that a partition loads on each machine. */
const rulesOf = async (
  between: readonly [readonly string[], readonly string[]],
  protocol: 'all' | 'api' | 'storage' | 'replication',
): Promise<ReadonlyMap<string, string>> => {
  const loaded = new Map<string, string>()
  const context = {
    lab,
    signal: new AbortController().signal,
    machine: (name: string) => {
      const run = (_: unknown, { input }: { input?: string } = {}): Promise<string> => {
        if (input !== undefined) loaded.set(name, input)
        return Promise.resolve('')
      }
      return { run, try: () => Promise.resolve({ exitCode: 0, stdout: '', stderr: '' }) }
    },
  } as unknown as Context
  const aimed = await partition.aim(
    context,
    { fault: 'partition', between, protocol } as unknown as FaultSpec,
    { server: 'worker1', index: 0 },
  )
  await aimed.act(context)
  return loaded
}

describe('a partition of two machines that serve one target', () => {
  it('a partition of a pair cuts only the replication, in both directions, whichever machine is named first', async () => {
    const rules = await rulesOf([['target1'], ['target2']], 'replication')
    expect([...rules.keys()].sort()).toEqual(['target1', 'target2'])
    expect(rules.get('target1')).toContain('ip saddr { 192.168.56.72 } tcp sport 7788 drop')
    expect(rules.get('target1')).toContain('ip daddr { 192.168.56.72 } tcp dport 7788 drop')
    expect(rules.get('target2')).toContain('ip saddr { 192.168.56.71 } tcp sport 7788 drop')
  })

  it('a partition of a pair cuts the moving address as well: the machine that may have it drops what its clients send', async () => {
    const rules = await rulesOf([['worker1'], ['target1']], 'all')
    expect(rules.get('target1')).toContain('ip saddr { 192.168.56.21')
    expect(rules.get('worker1')).not.toContain('192.168.56.70')
  })

  it.each([
    ['storage', 'target1', 'tcp dport 3260', '192.168.56.70'],
    ['api', 'master2', 'tcp dport 6443', '192.168.56.10'],
  ] as const)(
    'cuts only %s also at the address that moves, if %s has it: that machine drops what is sent to its port',
    async (protocol, server, port, moving) => {
      const rules = await rulesOf([[server], ['worker1']], protocol)
      expect([...rules.keys()].sort()).toEqual([server, 'worker1'])
      expect(rules.get(server)).toContain(`ip saddr { 192.168.56.21, 10.244.21.0/24 } ${port} drop`)
      expect(rules.get('worker1')).not.toContain(moving)
    },
  )

  it('a partition cuts clients off the moving address when both machines are on the other side', async () => {
    const rules = await rulesOf(
      [
        ['worker1', 'worker2'],
        ['target1', 'target2'],
      ],
      'storage',
    )
    expect(rules.get('worker2')).toContain('192.168.56.70')
    expect(rules.get('worker2')).toContain('tcp dport 3260 drop')
    expect([...rules.keys()].sort()).toEqual(['worker1', 'worker2'])
  })
})
