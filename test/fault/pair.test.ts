/** What faults do to two machines that serve one target. */
import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import type { Context } from '../../src/context.js'
import { diskError } from '../../src/fault/disk-error.js'
import { maintenance } from '../../src/fault/maintenance.js'
import { partition } from '../../src/fault/partition.js'
import { see } from '../../src/fault/sign.js'
import { splitBrain } from '../../src/fault/split-brain.js'
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
    'a partition of %s also cuts the moving address, if %s has it: that machine drops what is sent to its port',
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

/** Machines of the pair that answer each command, or refuse it; their commands are kept. */
const pairThat = (answer: (machine: string, command: string) => string) => {
  const commands: string[] = []
  const context = {
    lab,
    signal: new AbortController().signal,
    // All deadlines expire at once.
    provider: {
      slowdown: 0,
      states: () => Promise.resolve(lab.machines.map(({ name }) => ({ name, status: 'running' }))),
    },
    machine: (name: string) => {
      const run = ({ text }: { text: string }): Promise<string> => {
        commands.push(`${name}: ${text}`)
        return Promise.resolve(answer(name, text))
      }
      return {
        run,
        try: async (command: { text: string }) => ({ exitCode: 0, stdout: await run(command), stderr: '' }),
      }
    },
  } as unknown as Context
  return { context, commands }
}

const roles = { server: 'worker1', 'target-serving': 'target2', 'target-waiting': 'target1', index: 0 }

describe('maintenance of a machine that serves a target with another one', () => {
  const spec = { fault: 'maintenance', machine: 'target-serving' } as FaultSpec
  /** The output of crm_mon: whether target2 is standby, and where the disk and the target are. */
  const monitor = (standby: boolean, disk: string, target: string): string =>
    `<x><nodes><node name="target2" online="true" standby="${String(standby)}" maintenance="false" unclean="false"/></nodes><resources>
      <resource id="disk" role="Unpromoted" failed="false"><node name="${disk}"/></resource>
      <resource id="target" role="Started" failed="false"><node name="${target}"/></resource>
    </resources></x>`

  it('maintenance is requested at the other machine, and the machine is taken back afterwards', async () => {
    const { context, commands } = pairThat(() => '')
    const aimed = await maintenance.aim(context, spec, roles)
    await aimed.act(context)
    expect(commands).toEqual([
      'target1: crm_attribute --quiet --type nodes --node target2 --name standby --update on',
    ])
    expect(aimed.undo).toEqual([{ do: 'end-maintenance', machine: 'target2' }])
    await maintenance.undos[0]?.carryOut(context, { undo: aimed.undo[0] } as never)
    expect(commands.at(-1)).toMatch(/--node target2 --name standby --delete$/)
  })

  it.each([
    [
      'maintenance acts once the machine is standby and runs nothing',
      true,
      'target1',
      'target1',
      'acting',
      true,
    ],
    ['maintenance does not act while something is left there', true, 'target1', 'target2', 'acting', false],
    [
      'maintenance does not act while the machine is not standby',
      false,
      'target1',
      'target1',
      'acting',
      false,
    ],
    [
      'maintenance is gone once the machine has its copy of the disk again',
      false,
      'target2',
      'target1',
      'gone',
      true,
    ],
    ['maintenance is not gone while the machine has no copy', false, 'target1', 'target1', 'gone', false],
    ['maintenance is not gone while the machine is standby', true, 'target2', 'target1', 'gone', false],
  ] as const)('%s', async (_, standby, disk, target, sign, ok) => {
    const { context } = pairThat(() => monitor(standby, disk, target))
    const aimed = await maintenance.aim(context, spec, roles)
    expect(await see(aimed[sign], context)).toMatchObject({ ok })
  })
})

describe('a disk that fails below a copy', () => {
  const spec = { fault: 'disk-error', machine: 'target-serving' } as FaultSpec
  const well = '0 8390656 linear 98:32 0'

  it('a failing disk refuses each request, and gets its own table back afterwards', async () => {
    const { context, commands } = pairThat(() => well)
    const aimed = await diskError.aim(context, spec, roles)
    await aimed.possible?.(context)
    await aimed.act(context)
    expect(commands.at(-1)).toBe(
      "target2: dmsetup reload copy-0 --table '0 8390656 error' && dmsetup suspend --nolockfs copy-0 && dmsetup resume --noudevsync copy-0",
    )
    expect(aimed.undo).toEqual([{ do: 'give-disk-back', machine: 'target2', layer: 'copy-0', table: well }])
    await diskError.undos[0]?.carryOut(context, { undo: aimed.undo[0] } as never)
    expect(commands.at(-1)).toContain(`dmsetup reload copy-0 --table '${well}'`)
  })

  it('a disk that already fails is refused', async () => {
    const { context } = pairThat(() => '0 8390656 error')
    const aimed = await diskError.aim(context, spec, roles)
    await expect(aimed.possible?.(context)).rejects.toThrow('copy-0 of target2 is 0 8390656 error')
  })

  const error = "dd: error reading '/dev/dm-0': Input/output error"
  it.each([
    ['a failing disk is seen once a read is an error', `error\n${error}`, 'acting', true],
    ['a failing disk is not seen while a read is answered', 'error\n4096 bytes copied', 'acting', false],
    ['a failing disk is not seen while its layer passes everything on', `linear\n${error}`, 'acting', false],
    ['a failing disk is well again once it can be read', 'linear\n4096 bytes copied', 'gone', true],
    ['a failing disk is not well while a read is an error', `linear\n${error}`, 'gone', false],
    ['a failing disk is not well while its layer is missing', '', 'gone', false],
  ] as const)('%s', async (_, said, sign, ok) => {
    let aimedAt = true
    const { context } = pairThat(() => (aimedAt ? well : said))
    const aimed = await diskError.aim(context, spec, roles)
    aimedAt = false
    expect(await see(aimed[sign], context)).toMatchObject({ ok })
  })
})

describe('a split brain that is made on purpose', () => {
  const spec = { fault: 'split-brain', machine: 'target-waiting' } as FaultSpec
  const copy = (connection: string, roles: string, disks: string): string =>
    ` 0: cs:${connection} ro:${roles} ds:${disks} C r-----`
  const well = copy('Connected', 'Secondary/Primary', 'UpToDate/UpToDate')

  it('a split brain is made without fencing, at the copy that does not serve', async () => {
    const { context, commands } = pairThat(() => well)
    const aimed = await splitBrain.aim(context, spec, roles)
    await aimed.possible?.(context)
    commands.length = 0
    await aimed.act(context)
    expect(commands[0]).toContain('--name stonith-enabled --update false')
    expect(commands.slice(1, 3)).toEqual([
      'target1: drbdsetup disk-options 0 --fencing=dont-care',
      'target2: drbdsetup disk-options 0 --fencing=dont-care',
    ])
    expect(commands[3]).toMatch(/^target1: drbdadm disconnect .* drbdadm primary --force /)
    expect(commands).toHaveLength(4)
  })

  it('a split brain is healed at the cost of the copy that did not serve, and is guarded again', async () => {
    const { context, commands } = pairThat(() => '')
    const aimed = await splitBrain.aim(context, spec, roles)
    expect(aimed.undo).toEqual([{ do: 'join-copies', machine: 'target1' }])
    await splitBrain.undos[0]?.carryOut(context, { undo: aimed.undo[0] } as never)
    expect(commands.filter((each) => each.includes('--discard-my-data'))).toEqual([
      expect.stringMatching(/^target1: /),
    ])
    expect(commands.filter((each) => each.includes('drbdadm adjust'))).toHaveLength(2)
    expect(commands.at(-1)).toMatch(
      /--name stonith-enabled --update true && .*--name maintenance-mode --delete$/,
    )
  })

  it.each([
    ['StandAlone', 'secondary, connect --discard-my-data'],
    ['WFConnection', 'secondary, disconnect, connect --discard-my-data'],
    ['Connected', ''],
  ])('a split brain is healed when the connection is %s, where DRBD knows it', async (state, said) => {
    const { context, commands } = pairThat(() => '')
    const aimed = await splitBrain.aim(context, spec, roles)
    await splitBrain.undos[0]?.carryOut(context, { undo: aimed.undo[0] } as never)
    const command = commands.find((each) => each.includes('--discard-my-data'))!.replace(/^target1: /, '')
    // As DRBD 8.4 does: whoever asks it to end a connection that it has given up hears `unknown connection`.
    const drbdadm = `drbdadm() { case $1 in cstate) echo ${state}; return ;; disconnect) test ${state} != StandAlone || return 10 ;; esac; echo "$@"; }`
    const output = execFileSync('sh', ['-c', `${drbdadm}\n${command}`], { encoding: 'utf8' })
    expect(
      output
        .trim()
        .replaceAll(/ r-\S+/g, '')
        .split('\n')
        .join(', '),
    ).toBe(said)
  })

  it.each([
    ['serves', copy('Connected', 'Primary/Secondary', 'UpToDate/UpToDate')],
    ['has lost the other one', copy('WFConnection', 'Secondary/Unknown', 'UpToDate/DUnknown')],
    ['has no copy', ''],
  ])('no split brain is made at a machine that %s', async (_, drbd) => {
    const { context } = pairThat(() => drbd)
    const aimed = await splitBrain.aim(context, spec, roles)
    await expect(aimed.possible?.(context)).rejects.toThrow('target1 is not the waiting one')
  })

  const alone = copy('StandAlone', 'Secondary/Unknown', 'UpToDate/DUnknown')
  it.each([
    ['a split brain is seen once neither copy looks for the other', alone, alone, 'acting', true],
    ['a split brain is not seen while one copy waits for the other', alone, well, 'acting', false],
    ['a split brain is gone once both copies are up to date', well, well, 'gone', true],
    ['a split brain is not gone while one copy is alone', well, alone, 'gone', false],
    ['a split brain is not gone while DRBD is down', '', '', 'gone', false],
  ] as const)('%s', async (_, first, second, sign, ok) => {
    const { context } = pairThat((machine) => (machine === 'target1' ? first : second))
    const aimed = await splitBrain.aim(context, spec, roles)
    expect(await see(aimed[sign], context)).toMatchObject({ ok })
  })
})
