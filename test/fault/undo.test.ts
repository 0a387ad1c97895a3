/** The journal of faults, and how its entries are undone. */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execaSync } from 'execa'
import { beforeEach, expect, test, vi } from 'vitest'
import { loadLab, registry } from '../../src/registry.js'
import type { Context } from '../../src/context.js'
import { noteUndo, readJournal } from '../../src/journal.js'
import { undoAll } from '../../src/trial/undo.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = await loadLab('iscsi-ha')
const journal = (): string => join(pathsOf(lab).root, 'faults')

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
  await mkdir(journal(), { recursive: true })
})

const contextThat = (
  done: string[],
  fails: (what: string) => boolean = () => false,
  off: readonly string[] = [],
  pods: readonly object[] = [],
): Context => {
  const stopped = new Set(off)
  const act = async (what: string): Promise<string> => {
    if (fails(what)) throw new Error('not now')
    done.push(what)
    return ''
  }
  return {
    lab,
    signal: new AbortController().signal,
    provider: {
      states: async () =>
        lab.machines.map(({ name }) => ({ name, status: stopped.has(name) ? 'stopped' : 'running' })),
      power: {
        cut: (_lab: unknown, name: string) => {
          stopped.add(name)
          return act(`cut ${name}`)
        },
      },
      machines: { start: (_lab: unknown, { name }: { name: string }) => act(`start ${name}`) },
      disks: { lunDevice: () => '/dev/ubdc' },
      pause: { end: (_lab: unknown, name: string) => act(`resume ${name}`) },
    },
    kubectl: {
      run: (words: readonly string[]) =>
        words[0] !== 'get'
          ? act(words.join(' '))
          : Promise.resolve(
              words[1] === 'node'
                ? JSON.stringify({ metadata: { resourceVersion: '7' }, spec: {} })
                : JSON.stringify({ items: pods }),
            ),
    },
    machine: (name: string) => ({ run: ({ text }: { text: string }) => act(`${name}: ${text}`) }),
  } as unknown as Context
}

test('each undo is on disk before its action runs, and the last action is undone first', async () => {
  await noteUndo(lab, 'drain', 'drain', [{ do: 'uncordon', machine: 'worker1' }])
  await noteUndo(lab, 'drain', 'hang', [{ do: 'resume', machine: 'worker2' }])
  const names = (await readdir(journal())).sort()
  const entries = await Promise.all(names.map((name) => readFile(join(journal(), name), 'utf8')))
  expect(entries.map((text) => JSON.parse(text) as object)).toMatchObject([
    { by: 'drain', undo: { do: 'uncordon' } },
    { fault: 'hang' },
  ])
  const done: string[] = []
  expect(await undoAll(contextThat(done), registry)).toEqual([])
  expect(done).toEqual(['resume worker2', 'uncordon worker1'])
  expect(await readdir(journal())).toEqual([])
})

test('an undo that fails stays in the journal and does not stop the others', async () => {
  await noteUndo(lab, 'x', 'drain', [{ do: 'uncordon', machine: 'worker1' }])
  await noteUndo(lab, 'x', 'hang', [{ do: 'resume', machine: 'worker2' }])
  const done: string[] = []
  expect(
    await undoAll(
      contextThat(done, (what) => what.startsWith('resume')),
      registry,
    ),
  ).toEqual(['hang on worker2: resume: not now'])
  expect(done).toEqual(['uncordon worker1'])
  expect((await readJournal(lab)).map(({ fault }) => fault)).toEqual(['hang'])
  expect(await undoAll(contextThat(done), registry)).toEqual([])
  expect(await readJournal(lab)).toEqual([])
})

test('a workload that was scaled to zero for reading back gets its pods again', async () => {
  const scale = { do: 'scale', machine: 'master', workload: 'deployment/mysql-server', replicas: 1 } as const
  await noteUndo(lab, 'lab run iscsi-ha drain', 'read-back', [scale])
  const done: string[] = []
  expect(await undoAll(contextThat(done), registry)).toEqual([])
  expect(done).toEqual(['scale deployment/mysql-server --replicas=1'])
})

test('only the requested entries are undone', async () => {
  const [one] = await noteUndo(lab, 'x', 'drain', [{ do: 'uncordon', machine: 'worker1' }])
  await noteUndo(lab, 'x', 'hang', [{ do: 'resume', machine: 'worker2' }])
  const done: string[] = []
  await undoAll(contextThat(done), registry, ({ id }) => id === one?.id)
  expect(done).toEqual(['uncordon worker1'])
  expect((await readJournal(lab)).map(({ fault }) => fault)).toEqual(['hang'])
})

test('packet filter rules of a machine that is off count as gone', async () => {
  await noteUndo(lab, 'x', 'partition', [{ do: 'remove-table', machine: 'worker1', table: 'lab_fault_0' }])
  const done: string[] = []
  expect(await undoAll(contextThat(done, undefined, ['worker1']), registry)).toEqual([])
  expect(done).toEqual([])
  expect(await readJournal(lab)).toEqual([])
})

test('an undo waits for a host that does not answer, because the host may run with what was changed', async () => {
  await noteUndo(lab, 'x', 'partition', [{ do: 'remove-table', machine: 'worker1', table: 'lab_fault_0' }])
  const done: string[] = []
  const context = contextThat(done, undefined, ['worker1'])
  const provider = { ...context.provider, silentMayRun: true }
  expect(await undoAll({ ...context, provider }, registry)).toEqual([
    expect.stringContaining('worker1 does not answer, so it is not known whether it is off'),
  ])
  expect((await readJournal(lab)).map(({ fault }) => fault)).toEqual(['partition'])
})

/** Hosts without power switches, of which each question says which boot it is; undefined: no answer. */
const hostsThat = (done: string[], boots: readonly (string | undefined)[]): Context => {
  const context = contextThat(done)
  const answers = [...boots]
  const boot = async (): Promise<string> => {
    const now = answers.length > 1 ? answers.shift() : answers[0]
    if (now === undefined) throw new Error('no answer')
    done.push(`boot ${now}`)
    return Promise.resolve(now)
  }
  return {
    ...context,
    provider: { ...context.provider, power: { ...context.provider.power, onlyReboots: () => true } },
    machine: (name: string) => ({
      run: (command: { text: string }) =>
        command.text.includes('boot_id') ? boot() : context.machine(name).run(command as never),
    }),
  } as unknown as Context
}

test('a fenced host without a power switch is admitted only in another boot, and not while it is silent', async () => {
  await noteUndo(lab, 'x', 'fence', [{ do: 'readmit', machine: 'worker1', targets: ['target'] }])
  const done: string[] = []
  expect(await undoAll(hostsThat(done, [undefined]), registry)).toEqual([
    expect.stringContaining('no answer'),
  ])
  expect(done).toEqual([])
  expect((await readJournal(lab)).map(({ undo }) => undo.do)).toEqual(['readmit'])
  expect(await undoAll(hostsThat(done, ['one', 'one', 'two']), registry)).toEqual([])
  expect(done.slice(0, 5)).toEqual([
    'boot one',
    'cut worker1',
    'boot one',
    'boot two',
    expect.stringMatching(/^target: /),
  ])
})

test('a fenced node is admitted only after it has been restarted', async () => {
  const [, readmit] = await noteUndo(lab, 'x', 'fence', [
    { do: 'untaint', machine: 'worker1' },
    { do: 'readmit', machine: 'worker1', targets: ['target'] },
  ])
  const done: string[] = []
  expect(
    await undoAll(
      contextThat(done, (what) => what.startsWith('target:'), ['worker1']),
      registry,
    ),
  ).toHaveLength(1)
  expect(done[0]).toBe('cut worker1')
  expect((await readJournal(lab)).map(({ undo }) => undo.do)).toEqual(['readmit'])
  done.length = 0
  expect(await undoAll(contextThat(done, undefined, ['worker1']), registry)).toEqual([])
  expect(done).toEqual(['cut worker1', expect.stringMatching(/^target: /), 'start worker1'])
  expect(done[1]).toContain(`/var/lib/lab/unfenced/${readmit?.id ?? ''}`)
  expect(done[1]).toMatch(/\/etc\/lab\/boot\.d\/50-target$/)
})

test('a target machine that is off is started to admit a fenced node again', async () => {
  await noteUndo(lab, 'x', 'fence', [{ do: 'readmit', machine: 'worker1', targets: ['target'] }])
  const done: string[] = []
  expect(await undoAll(contextThat(done, undefined, ['worker1', 'target']), registry)).toEqual([])
  expect(done.map((what) => what.split(':')[0])).toEqual([
    'cut worker1',
    'start target',
    'target',
    'start worker1',
  ])
})

test('a node that was fenced by power boots afresh, even when somebody else started it', async () => {
  await noteUndo(lab, 'x', 'fence', [{ do: 'boot-afresh', machine: 'worker1' }])
  const done: string[] = []
  expect(await undoAll(contextThat(done), registry)).toEqual([])
  expect(done[0]).toBe('cut worker1')
  expect(done.at(-1)).toBe('start worker1')
})

test('Kubernetes forgets exactly the pods that were replaced before their node is started', async () => {
  await noteUndo(lab, 'x', 'power-cut', [{ do: 'switch-on', machine: 'worker1' }])
  const done: string[] = []
  const pods = [
    { metadata: { name: 'old', namespace: 'default', deletionTimestamp: '2026-11-21T10:00:00Z' } },
    { metadata: { name: 'kube-proxy', namespace: 'kube-system' } },
  ]
  expect(await undoAll(contextThat(done, undefined, ['worker1'], pods), registry)).toEqual([])
  expect(done).toEqual([
    'delete pod old --namespace=default --force --grace-period=0 --ignore-not-found',
    'start worker1',
  ])
})

test('Kubernetes forgets no pod of a host that only does not answer, because the pod may still write', async () => {
  await noteUndo(lab, 'x', 'power-cut', [{ do: 'switch-on', machine: 'worker1' }])
  const done: string[] = []
  const pods = [
    { metadata: { name: 'old', namespace: 'default', deletionTimestamp: '2026-11-21T10:00:00Z' } },
  ]
  const context = contextThat(done, undefined, ['worker1'], pods)
  const provider = { ...context.provider, silentMayRun: true }
  expect(await undoAll({ ...context, provider }, registry)).toEqual([])
  expect(done).toEqual(['start worker1'])
})

test('two writers of the journal do not overwrite each other, and a partial file is ignored', async () => {
  await Promise.all(
    ['worker1', 'worker2'].map((machine) => noteUndo(lab, 'x', 'drain', [{ do: 'uncordon', machine }])),
  )
  await writeFile(join(journal(), '2026-11-21T10:00:00.000Z-1-1.json.new'), '{')
  expect((await readJournal(lab)).map(({ undo }) => undo.machine).sort()).toEqual(['worker1', 'worker2'])
})

test('a file that is not a journal is reported as such', async () => {
  await writeFile(join(journal(), '1.json'), '{"undo": "everything"}')
  await expect(readJournal(lab)).rejects.toThrow('faults/1.json: not a fault to undo')
})

test('targets are enabled again also where another machine of the pair now serves them', async () => {
  await noteUndo(lab, 'run', 'target-loss', [{ do: 'enable-targets', machine: 'target' }])
  const done: string[] = []
  await undoAll(contextThat(done), registry)
  const [command = ''] = done
  const nowhere = command
    .replace('target: ', '')
    .replaceAll('/sys/kernel/config/target/iscsi', await temporaryFolder())
  expect(execaSync('sh', ['-c', nowhere], { reject: false })).toMatchObject({ exitCode: 0, stderr: '' })
})

test.each(['', '{', 'null', '[]', '5'])(
  'a damaged entry of the journal is no empty journal: %j',
  async (text) => {
    await mkdir(journal(), { recursive: true })
    await writeFile(join(journal(), '1.json'), text)
    await expect(readJournal(lab)).rejects.toMatchObject({
      code: 'bad-journal',
      hint: expect.stringMatching(/^lab down iscsi-ha\nor .*rm -r \S+\/faults\/1\.json$/),
    })
  },
)

test('an entry or a journal that cannot be read is reported, rather than taken for undone', async () => {
  await mkdir(join(journal(), '1.json'), { recursive: true })
  await expect(readJournal(lab)).rejects.toThrow('faults/1.json: not a fault to undo')
  await rm(journal(), { recursive: true })
  await writeFile(journal(), '')
  await expect(readJournal(lab)).rejects.toThrow('faults: not a fault to undo')
})

test('targets with any kind of name are enabled again, not only those that start with iqn', async () => {
  await noteUndo(lab, 'run', 'target-loss', [{ do: 'enable-targets', machine: 'target' }])
  const done: string[] = []
  await undoAll(contextThat(done), registry)
  expect(done.join()).toContain('for tpg in /sys/kernel/config/target/iscsi/*/tpgt_1; do')
})
