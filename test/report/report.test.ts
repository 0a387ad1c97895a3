import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { chartOf } from '../../src/report/chart.js'
import { compareRuns } from '../../src/report/compare.js'
import { runJson, runJunit, runPage } from '../../src/report/documents.js'
import { runMarkdown } from '../../src/report/markdown.js'
import { unsafeSetting } from '../../src/report/words.js'
import { measureHost } from '../../src/report/host.js'
import type { ScenarioFacts } from '../../src/trial/facts.js'
import { runJsonSchema, runSchema, runSchemaFile, type RunReport } from '../../src/report/schema.js'
import { runReport } from '../../src/report/run.js'
import { printable } from '../../src/report/text.js'
import { recoveryOf } from '../../src/trial/recovery.js'
import type { Seen } from '../../src/fault/sign.js'
import { timelineOf } from '../../src/trial/timeline.js'
import {
  a,
  b,
  borrowed,
  cutShort,
  facts,
  good,
  ledgerFacts,
  ledgerOf,
  nasty,
  observations,
  powerCut,
  clocks,
} from './runs.js'

const runs: readonly (readonly [string, RunReport])[] = [
  ['good', good],
  ['nasty', nasty],
  ['cut-short', cutShort],
  ['borrowed', borrowed],
]

describe.each(runs)('the run %s', (name, report) => {
  test('the run is written as JSON that the schema accepts', async () => {
    expect(runSchema.parse(JSON.parse(runJson([report])))).toEqual(report)
    await expect(runJson([report])).toMatchFileSnapshot(`golden/${name}.json`)
  })
  test('the run is written as JUnit', () =>
    expect(runJunit([report])).toMatchFileSnapshot(`golden/${name}.junit.xml`))
  test('the run is written as Markdown', () =>
    expect(runMarkdown([report])).toMatchFileSnapshot(`golden/${name}.md`))
  test('the run is written as a page', () =>
    expect(runPage([report])).toMatchFileSnapshot(`golden/${name}.html`))
})

test('a page of several runs begins with a table of them', async () => {
  const all = runs.map(([, report]) => report)
  expect(runMarkdown(all)).toMatch(/^\*\*1 PASS, 2 FAIL, 1 UNKNOWN\*\*/)
  expect(runPage(all).match(/<section id="run-\d">/g)).toHaveLength(4)
  await expect(runPage(all)).toMatchFileSnapshot('golden/several.html')
  expect(runJunit(all).match(/<testsuite /g)).toHaveLength(4)
  expect(JSON.parse(runJson(all))).toMatchObject({ schema: 'lab.runs/v1', runs: all })
})

test('lab report --compare shows two runs in one table', () =>
  expect(`${compareRuns(good, nasty)}\n`).toMatchFileSnapshot('golden/compared.md'))

test('schemas/run.schema.json matches the schema, and npm run generate writes it', async () => {
  expect(JSON.parse(await readFile(runSchemaFile, 'utf8'))).toEqual(runJsonSchema())
})

test('labs/run.schema.json, where the schema used to be, refers to it', async () => {
  const old = fileURLToPath(new URL('../../labs/run.schema.json', import.meta.url))
  const { $ref } = JSON.parse(await readFile(old, 'utf8')) as { $ref: string }
  expect(join(dirname(old), $ref)).toBe(runSchemaFile)
})

test('a report measures its host: its processors, and the time that an empty Node.js program takes', async () => {
  const { processors, nodeStart } = await measureHost()
  expect(processors).toBeGreaterThan(0)
  expect(nodeStart).toBeGreaterThan(0)
})

describe('output of a machine in a report', () => {
  test('a report puts no markup, script or address of a machine into the page', () => {
    const page = runPage([nasty])
    expect(page).not.toMatch(/<script|<img|<link|<iframe|\bon\w+=|url\(|@import/i)
    expect(page).not.toMatch(/(?:https?:)?\/\/(?!www\.w3\.org)\w/)
    expect(page).toContain('&lt;script&gt;')
    expect(page.match(/<td/g)).toHaveLength(page.match(/<\/td>/g)?.length ?? 0)
  })

  test('a report writes XML with legal characters only, and closes every tag', () => {
    const xml = runJunit([nasty])
    expect(xml).not.toMatch(/[^\P{Cc}\n\t]/u)
    expect(xml).not.toMatch(/&(?!(?:amp|lt|gt|quot|#x27|#x60|#x3D);)/)
    const open: string[] = []
    for (const [, end, tag = '', empty] of xml.matchAll(/<(\/?)([a-z-]+)(?:\s[^<>]*?)?(\/?)>/g)) {
      if (end) expect(open.pop()).toBe(tag)
      else if (!empty) open.push(tag)
    }
    expect(open).toEqual([])
  })

  test.each([
    ['\u001b[31mred\u001b[0m', 'red'],
    ['a\u0000b\u0008\u007f\u0085', 'a\ufffdb\ufffd\ufffd\ufffd'],
    ['a\tb\nc', 'a\tb\nc'],
    ['\ud800x\udc00', '\ufffdx\ufffd'],
    ['\ufffe\uffff', '\ufffd\ufffd'],
    ['\u{1f4be} é', '\u{1f4be} é'],
  ])('%j becomes the printable text %j', (text, shown) => {
    expect(printable(text)).toBe(shown)
  })

  test('a report contains no secret in any format', () => {
    const secret = 'hunter2hunter2'
    const { records, rows } = ledgerOf(0)
    const report = runReport(
      facts({
        checks: [{ when: 'after', title: `asks ${secret}`, ok: false, saw: secret }],
        faults: [{ fault: 'hang', on: ['worker1'], detail: secret, error: secret }],
        ledger: { ...ledgerFacts({ records, rows }, [{ seq: 1, content: secret }]), torn: secret },
      }),
      (text) => text.replaceAll(secret, '***'),
    )
    expect(JSON.stringify(report)).not.toContain(secret)
  })
})

describe('the verdict', () => {
  const { records, rows } = ledgerOf(18_000)
  const before = facts().checks.filter(({ when }) => when === 'before')
  const after = facts().checks.filter(({ when }) => when === 'after')
  const [cut] = facts().faults as [
    ScenarioFacts['faults'][number] & Readonly<Record<'acting' | 'gone', Seen>>,
  ]
  /** A ledger in which nothing was answered for a while after the fault, and the resulting report. */
  const silentFor = (length: number, by?: 'heal'): Partial<ScenarioFacts> => {
    const ledger = ledgerFacts(ledgerOf(length))
    const healed = recoveryOf(ledger.records, 'heal')
    return { ledger, recovery: by ? { healed } : { itself: recoveryOf(ledger.records, 'itself'), healed } }
  }
  const cases: readonly [string, Partial<ScenarioFacts>, RunReport['verdict'], string | undefined][] = [
    ['every check passes', {}, 'PASS', undefined],
    ['no budget at all', { scenario: { ...powerCut, expect: {} } }, 'PASS', undefined],
    [
      'a budget met to the millisecond',
      { scenario: { ...powerCut, expect: { writeGap: 18_500 } } },
      'PASS',
      undefined,
    ],
    ['a budget missed by one', { scenario: { ...powerCut, expect: { writeGap: 18_499 } } }, 'FAIL', '18.5 s'],
    ['a budget that was not seen', { timeline: undefined }, 'UNKNOWN', 'not seen'],
    [
      'no takeover: the same server started anew',
      {
        scenario: { ...powerCut, expect: { takeover: 25_000 } },
        timeline: timelineOf(
          observations.map((seen) => (seen.pod === b.pod ? { ...seen, ...a } : seen)),
          clocks,
        ),
      },
      'UNKNOWN',
      'not seen',
    ],
    [
      'a gap that is short enough so far, but does not end',
      {
        ledger: ledgerFacts(
          {
            records: records.filter(({ ms }) => ms < 30_000 || ms === 50_000),
            rows: rows.filter(({ seq }) => seq < 60),
          },
          rows.filter(({ seq }) => seq < 60),
        ),
      },
      'UNKNOWN',
      '20.5 s, and it did not end',
    ],
    ['no ledger', { ledger: undefined }, 'UNKNOWN', 'there is no ledger'],
    [
      'a row lost',
      { ledger: ledgerFacts({ records, rows }, rows.slice(1)) },
      'FAIL',
      'LOST: 1 acknowledged row is missing',
    ],
    [
      'rows not read back',
      {
        ledger: {
          ...ledgerFacts({ records, rows }),
          judgement: { ...ledgerFacts({ records, rows }).judgement, verdict: 'UNKNOWN', unknown: ['no'] },
        },
      },
      'UNKNOWN',
      'no',
    ],
    ['interrupted', { interrupted: true }, 'UNKNOWN', 'the run was interrupted'],
    [
      'a lab that was unhealthy before',
      { checks: [...before.map((check) => ({ ...check, ok: false })), ...after] },
      'UNKNOWN',
      'Ready',
    ],
    [
      'a lab that is unhealthy afterwards',
      { checks: [...before, ...after.map((check) => ({ ...check, ok: false }))] },
      'FAIL',
      'Ready',
    ],
    ['a lab that was not checked afterwards', { checks: before }, 'UNKNOWN', 'not checked'],
    [
      'a fault that was not injected',
      { faults: [{ fault: 'hang', on: ['worker1'], detail: '' }] },
      'UNKNOWN',
      'not injected',
    ],
    [
      'a fault that was requested but did not act: a reboot that did not happen',
      { faults: [{ ...cut, acting: { ...cut.acting, ok: false, saw: 'worker1: still boot 8f14' } }] },
      'FAIL',
      'still boot 8f14',
    ],
    [
      'a fault whose command failed',
      { faults: [{ ...cut, acting: undefined, error: 'exit code 1' }] },
      'FAIL',
      'exit code 1',
    ],
    [
      'a fault that is still there after it was undone',
      { faults: [{ ...cut, gone: { ...cut.gone, ok: false, saw: 'worker1: stopped' } }] },
      'FAIL',
      'worker1: stopped',
    ],
    [
      'an undone fault that was not checked again',
      { faults: [{ ...cut, gone: undefined }] },
      'FAIL',
      'not checked',
    ],
    [
      'a lab that never recovers, without any budget',
      { scenario: { ...powerCut, expect: {} }, ...silentFor(Infinity) },
      'FAIL',
      'the database acknowledged nothing',
    ],
    [
      'a lab that recovers only because lab healed it',
      { scenario: { ...powerCut, expect: {} }, ...silentFor(26_000) },
      'FAIL',
      'the database acknowledged nothing',
    ],
    [
      'the same, where the scenario keeps its fault until the deadline',
      {
        scenario: { ...powerCut, heal: 'deadline', expect: {} },
        ...silentFor(26_000, 'heal'),
      },
      'PASS',
      undefined,
    ],
    [
      'a lab that was ended before it could recover',
      { scenario: { ...powerCut, expect: {} }, interrupted: true, ...silentFor(Infinity) },
      'UNKNOWN',
      'the database acknowledged nothing',
    ],
    [
      'a server that was not ended before its rows were read back',
      { diskProof: undefined },
      'UNKNOWN',
      'the server was not stopped first',
    ],
    [
      'a disk that no node let go',
      { diskProof: { ok: false, saw: 'no node has mounted its disk: no: worker1: mounted', seconds: 90 } },
      'UNKNOWN',
      'worker1: mounted',
    ],
    [
      'a file system that is not clean',
      {
        diskProof: {
          ok: true,
          saw: 'unmounted',
          seconds: 9,
          fileSystem: { ok: false, saw: 'clean with errors' },
        },
      },
      'FAIL',
      'clean with errors',
    ],
    [
      'a fault that was not healed, and an interruption: what is certain counts',
      { interrupted: true, faults: [{ fault: 'hang', on: ['worker1'], detail: '', injected: new Date(0) }] },
      'FAIL',
      'not undone',
    ],
  ]
  test.each(cases)('the verdict follows from the checks: %s', (_, changes, verdict, saw) => {
    const report = runReport(facts(changes))
    expect(report.verdict).toBe(verdict)
    const first = report.checks.find(({ outcome }) => outcome === (verdict === 'FAIL' ? 'failed' : 'unknown'))
    if (saw === undefined) expect(first).toBeUndefined()
    else expect(first?.saw).toContain(saw)
  })

  test('a report shows the figure of the walkthrough next to ours if both have the same single fault', () => {
    expect(good.seed?.ms).toBe(325_000)
    expect(
      runReport(facts({ scenario: { ...powerCut, inject: [{ fault: 'reboot', machine: 'x' }] } })).seed,
    ).toBeNull()
    expect(runReport(facts({ volume: 'claim' })).seed?.ms).toBe(124_000)
    expect(runReport(facts({ volume: undefined })).seed).toBeNull()
    const twice = { ...powerCut, inject: [...powerCut.inject, ...powerCut.inject] }
    expect(runReport(facts({ scenario: twice })).seed).toBeNull()
  })

  test('a report names an unsafe setting only when it did harm', () => {
    expect(unsafeSetting(nasty)).toMatch(/^This is what no fencing means/)
    expect(unsafeSetting({ ...nasty, fencing: 'power' })).toBeUndefined()
    expect(unsafeSetting({ ...good, fencing: 'none' })).toBeUndefined()
  })
})

describe('the timeline drawing', () => {
  test('the timeline drawing draws nothing without a ledger', () => {
    expect(chartOf(cutShort)).toBeUndefined()
  })

  test('the timeline drawing draws everything inside the picture', () => {
    for (const [, report] of runs) {
      const chart = chartOf(report)
      if (!chart) continue
      const end = chart.left + chart.plotWidth
      for (const { spans, gap } of chart.lanes) {
        for (const { x, width } of [...spans, ...(gap ? [gap] : [])]) {
          expect(Number(x)).toBeGreaterThanOrEqual(chart.left)
          expect(Number(x) + Number(width)).toBeLessThanOrEqual(end + 2)
        }
      }
      for (const { x } of [...chart.ticks, ...chart.markers]) {
        expect(Number(x)).toBeGreaterThanOrEqual(chart.left)
        expect(Number(x)).toBeLessThanOrEqual(end)
      }
      expect(chart.ticks.length).toBeLessThanOrEqual(11)
    }
  })

  test('the timeline drawing draws a gap to scale', () => {
    const [writer] = chartOf(good)?.lanes ?? []
    expect(writer?.gap?.label).toBe('18.5 s')
    // 50 s in all, over the width of the plot.
    expect(Number(writer?.gap?.width)).toBeCloseTo((18.5 / 50) * (chartOf(good)?.plotWidth ?? 0), 0)
  })
})
