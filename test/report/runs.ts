/** Plausible runs, to report on. */
import type { ScenarioSpec } from '../../src/lab/lab.js'
import type { ExperimentFacts, ScenarioFacts } from '../../src/trial/facts.js'
import { runReport } from '../../src/report/run.js'
import type { RunReport } from '../../src/report/schema.js'
import { judge } from '../../src/trial/judge.js'
import type { LedgerRecord, ReadBack, Server } from '../../src/trial/ledger.js'
import { recoveryOf } from '../../src/trial/recovery.js'
import type { Seen } from '../../src/fault/sign.js'
import { timelineOf, type EventType, type Observation } from '../../src/trial/timeline.js'

const fault = Date.parse('2026-11-21T15:04:35.000Z')
const at = (ms: number): string => new Date(fault + ms).toISOString()

export const a: Server = { pod: 'mysql-6f7-a', node: 'worker1' }
export const b: Server = { pod: 'mysql-6f7-b', node: 'worker2' }

export const powerCut: ScenarioSpec = {
  name: 'power-cut',
  description: 'The node of the database loses its power',
  inject: [{ fault: 'power-cut', machine: 'database' }],
  expect: { writeGap: 25_000, takeover: 25_000 },
  heal: 'recovery',
  deadline: 600_000,
}

const contentOf = (seq: number): string => `row ${String(seq)}`

/**
 * A writer and a reader of rows and a writer of lines, twice a second, from 10 s before the fault until 40 s after it,
 * with a pause.
 */
export const ledgerOf = (silentUntil: number): { records: LedgerRecord[]; rows: ReadBack[] } => {
  const records: LedgerRecord[] = [{ type: 'mark', mark: 'begin', at: at(-10_000), ms: 0 }]
  const rows: ReadBack[] = []
  for (let n = 0; n < 100; n++) {
    const ms = n * 500
    const since = ms - 10_000
    if (n === 20) records.push({ type: 'mark', mark: 'fault', at: at(0), ms })
    if (n === 21) records.push({ type: 'mark', mark: 'acting', at: at(500), ms })
    if (n === 64) records.push({ type: 'mark', mark: 'healing', at: at(22_000), ms })
    if (n === 70) records.push({ type: 'mark', mark: 'healed', at: at(25_000), ms })
    const answers = since < 0 || since >= silentUntil
    for (const [client, operation, medium] of [
      ['writer-1', 'write', 'row'],
      ['reader-1', 'read', 'row'],
      ['file-writer', 'write', 'file'],
    ] as const) {
      const address = `192.168.56.21:${medium === 'row' ? '32306' : '32307'}`
      const request = { client, operation, medium, seq: n, address } as const
      records.push({
        type: 'sent',
        ...request,
        at: at(since),
        ms,
        ...(operation === 'write' ? { content: contentOf(n) } : {}),
      })
      records.push(
        answers
          ? { type: 'acknowledged', ...request, at: at(since + 8), ms: ms + 8, server: since < 0 ? a : b }
          : { type: 'failed', ...request, at: at(since + 400), ms: ms + 400, error: 'ETIMEDOUT' },
      )
    }
    if (answers) rows.push({ seq: n, content: contentOf(n) })
  }
  records.push({ type: 'mark', mark: 'end', at: at(40_000), ms: 50_000 })
  return { records, rows }
}

const seen = (
  type: EventType,
  ms: number,
  source: string,
  detail: string,
  about: Partial<Server> = {},
): Observation => ({
  type,
  at: at(ms),
  ...(source === 'operator' ? { ms: 10_000 + ms } : {}),
  source,
  detail,
  ...about,
})

export const observations: readonly Observation[] = [
  seen('write-acknowledged', -492, 'operator', 'row 19', a),
  seen('fault', 0, 'operator', 'power-cut of worker1', { node: 'worker1' }),
  seen('node-not-ready', 9_100, 'master', 'node worker1: Ready=Unknown', { node: 'worker1' }),
  seen('node-fenced', 9_400, 'operator', 'uml: worker1 is off', { node: 'worker1' }),
  seen('replacement-scheduled', 9_900, 'master', 'Scheduled to worker2', b),
  seen('volume-mounted', 14_250, 'worker2', 'EXT4-fs (sda): mounted filesystem', b),
  seen('container-running', 15_250, 'worker2', 'Started container mysql', b),
  seen('write-acknowledged', 18_008, 'operator', 'row 56', b),
  seen('healed', 25_000, 'operator', 'worker1 is on'),
]

const clock = (ms: number, uncertainty: number) => ({ ms, uncertainty, zero: fault - 10_000 + ms })

export const clocks = { master: clock(0.4, 1.5), worker2: clock(250, 2) }

/** What was seen of a fault, this many milliseconds after it. */
const sign = (title: string, ok: boolean, saw: string, ms: number): Seen => ({
  title,
  ok,
  saw,
  at: new Date(fault + ms),
  ms: 10_000 + ms,
})

export const ledgerFacts = (
  { records, rows }: ReturnType<typeof ledgerOf>,
  readBack: readonly ReadBack[] | undefined = rows,
): NonNullable<ScenarioFacts['ledger']> => {
  // Nothing happens to the file.
  const lines = records.flatMap((record): ReadBack[] =>
    record.type === 'acknowledged' && record.medium === 'file'
      ? [{ seq: record.seq, content: contentOf(record.seq), server: record.server }]
      : [],
  )
  return { records, judgement: judge(records, readBack, lines) }
}

const recoveryIn = ({
  records,
}: NonNullable<ScenarioFacts['ledger']>): NonNullable<ScenarioFacts['recovery']> => ({
  itself: recoveryOf(records, 'itself'),
  healed: recoveryOf(records, 'heal'),
})

const goodLedger = ledgerFacts(ledgerOf(18_000))

export const facts = (changes: Partial<ScenarioFacts> = {}): ScenarioFacts => ({
  kind: 'scenario',
  lab: 'iscsi-ha',
  name: changes.scenario?.name ?? powerCut.name,
  description: changes.scenario?.description ?? powerCut.description,
  scenario: powerCut,
  started: new Date(fault - 12_000),
  seconds: 61.2345,
  interrupted: false,
  provider: 'uml',
  failover: 'fast',
  fencing: 'power',
  volume: 'lun',
  versions: { lab: '0.1.0', kubernetes: '1.36.3', kernel: '7.2' },
  host: { processors: 2, nodeStart: 61 },
  faults: [
    {
      fault: 'power-cut',
      on: ['worker1'],
      detail: 'database, which is worker1, loses its power until the scenario heals',
      injected: new Date(fault),
      injectedMs: 10_000,
      acting: sign('worker1 is off, as the provider reports it', true, 'worker1: stopped (no process)', 400),
      healed: new Date(fault + 25_000),
      gone: sign('worker1 is on again and has booted', true, 'worker1: boot 8f14, before 45c4', 31_000),
    },
  ],
  looks: [
    { when: 'before', at: at(-12_000), ms: 0, no: [] },
    {
      when: 'after',
      at: at(31_500),
      ms: 0,
      no: [{ title: 'the API server is ready', machine: 'master', saw: 'etcd: not ready' }],
    },
    { when: 'after', at: at(33_500), ms: 2000, no: [] },
  ],
  diskProof: {
    ok: true,
    saw: 'the server has ended: no pod; no node has mounted its disk: worker1: not mounted; worker2: not mounted',
    fileSystem: { ok: true, saw: 'Filesystem state: clean; lun: 187/262144 files' },
    seconds: 12.3,
  },
  checks: [
    { when: 'before', title: 'node worker1 is Ready', machine: 'worker1', ok: true, saw: 'Ready' },
    { when: 'after', title: 'node worker1 is Ready', machine: 'worker1', ok: true, saw: 'Ready' },
    { when: 'after', title: 'the row is there', ok: true, saw: '1 row' },
  ],
  timeline: timelineOf(observations, clocks),
  ledger: goodLedger,
  recovery: recoveryIn(goodLedger),
  ...changes,
})

export const good: RunReport = runReport(facts())

/** Everything that can go wrong in texts: markup, escapes, line breaks, bars. */
const nastyText =
  '</td><script>alert("1")</script> & \u001b[31mred\u001b[0m \u0000 `tick` | bar\nnext [a](b) \'q\' ]]> \u{1f4be}'

const unfenced = ((): RunReport => {
  const { records, rows } = ledgerOf(0)
  const last = records.findLast((record) => record.type === 'acknowledged' && record.client === 'writer-1')
  const again: LedgerRecord[] =
    last?.type === 'acknowledged'
      ? [
          {
            ...last,
            type: 'sent',
            seq: 200,
            ms: last.ms + 100,
            content: contentOf(200),
          } as unknown as LedgerRecord,
          { ...last, seq: 200, ms: last.ms + 110, server: a },
        ]
      : []
  const kept = rows
    .map((row) => (row.seq === 3 ? { ...row, content: nastyText } : row))
    .filter(({ seq }) => seq !== 7)
  return runReport(
    facts({
      lab: 'nasty',
      scenario: {
        ...powerCut,
        name: 'api-partition',
        description: nastyText,
        expect: { writeGap: 100, takeover: 1000, notReady: 1000 },
      },
      fencing: 'none',
      interrupted: true,
      versions: { [nastyText]: nastyText },
      faults: [
        {
          fault: 'partition',
          on: ['worker1', 'master'],
          detail: nastyText,
          injected: new Date(fault),
          error: nastyText,
        },
        { fault: 'hang', on: ['worker2'], detail: 'not reached' },
      ],
      checks: [{ when: 'before', title: nastyText, ok: false, saw: nastyText }],
      timeline: timelineOf(
        [...observations.slice(0, 2), seen('container-running', 1, 'stranger', nastyText)],
        clocks,
      ),
      ledger: {
        ...ledgerFacts({ records: [...records, ...again], rows }, [
          ...kept,
          { seq: 200, content: contentOf(200) },
        ]),
        torn: '{"type":"se<',
      },
    }),
  )
})()

export const nasty = unfenced

/** Ended before anything was written. */
export const cutShort: RunReport = runReport(
  facts({
    interrupted: true,
    faults: [],
    checks: [],
    looks: [],
    timeline: undefined,
    ledger: undefined,
    recovery: undefined,
    diskProof: undefined,
  }),
)

const experimentFacts = (
  changes: Partial<ExperimentFacts> & Pick<ExperimentFacts, 'claims' | 'figures' | 'events'>,
): ExperimentFacts => {
  const { kind: _kind, scenario: _scenario, recovery: _recovery, timeline: _timeline, ...common } = facts()
  return { ...common, kind: 'experiment', ...changes }
}

/** An experiment of the course, run on the machines of another lab. */
export const borrowed: RunReport = runReport(
  experimentFacts({
    lab: 'statefulset',
    of: 'replicaset',
    name: 'pod-deleted',
    description: 'A pod is replaced',
    faults: [],
    ledger: undefined,
    diskProof: undefined,
    claims: [
      { title: 'another pod is made at once', outcome: 'passed', saw: 'nginx-b, after 0.2 s' },
      { title: 'the other four were not touched', outcome: 'failed', saw: 'nginx-c was restarted' },
    ],
    figures: [
      { title: 'until 5 are ready again', ms: 3000, text: { ms: 60_000, how: 'the text: after a minute' } },
      { title: 'until the pod is gone', ms: 900, text: null },
    ],
    events: [
      { type: 'act', at: at(0), ms: 0, detail: 'delete nginx-a' },
      { type: 'pod', at: at(210), ms: 210, detail: 'nginx-b is made (nginx:1.26)' },
      { type: 'claim', at: at(250), ms: 250, detail: 'holds: another pod is made at once: nginx-b' },
    ],
  }),
)
