/** A power cut of a machine that has no power switch, as a Raspberry Pi: its report says what happened instead. */
import { expect, test, vi } from 'vitest'
import { runMarkdown } from '../../src/report/markdown.js'
import { runReport } from '../../src/report/run.js'
import { runScenario } from '../../src/trial/scenario.js'
import type { TrialEvent } from '../../src/trial/trial-event.js'
import { fakeLab } from './fake-lab.js'

vi.setConfig({ testTimeout: 60_000 })

/** Milliseconds until a machine that was forced to reboot answers again. */
const bootTime = 3000

/** Runs the scenario power-cut on machines of which none or all have a switch. */
const cutWith = async ({ switches }: { readonly switches: boolean }) => {
  const { state, request } = await fakeLab()
  if (!switches) {
    const { power } = request.context.provider
    const cut = power!.cut.bind(power)
    Object.assign(power!, {
      onlyReboots: () => true,
      cut: async (...given: Parameters<typeof cut>) => {
        await cut(...given)
        setTimeout(() => {
          state.off.delete('worker1')
          state.boots.set('worker1', 2)
        }, bootTime)
      },
    })
  }
  const events: TrialEvent[] = []
  const report = runReport(await runScenario({ ...request, event: (event) => events.push(event) }))
  return { report, events }
}

test.each([
  {
    switches: false,
    detail:
      'worker1 forced to reboot by sysrq, which is less than a power cut: worker1 has no power switch, stays under power, and comes back by itself',
  },
  { switches: true, detail: 'power of worker1 cut' },
])(
  'a report and its events call a power cut what it was, with a power switch: $switches',
  async ({ switches, detail }) => {
    const { report, events } = await cutWith({ switches })
    expect(report.verdict).toBe('PASS')
    expect(report.faults).toMatchObject([
      {
        ...{ fault: 'power-cut', on: ['worker1'], detail, acting: { ok: true } },
        gone: { ok: true, saw: 'worker1: boot boot-2, before boot-1' },
      },
    ])
    expect(
      events
        .filter(({ what }) => what === 'fault-started' || what === 'fault-undone')
        .map((event) => event.detail),
    ).toEqual([detail, detail])
    expect(runMarkdown([report])).toContain(detail)
  },
)
