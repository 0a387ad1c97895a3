import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { PartProgress } from '../../src/parts/preparation.js'
import { createView, wantsColor, type View, type ViewOptions } from '../../src/view/view.js'
import { Captured } from './captured.js'
import { finished, reportOf, resultOf, stepOf } from './plans.js'

const golden = (name: string): string => `golden/${name}`

const viewOn = (stream: Captured, options: Partial<ViewOptions> = {}): View =>
  createView({
    stream: stream.asStream,
    events: false,
    eventsStream: new Captured().asStream,
    color: false,
    interactive: false,
    env: {},
    ...options,
  })

const boot = stepOf('boot-cp', 'Boot cp', 'machines', 'cp')
const join = stepOf('join-worker1', 'Join worker1 to the cluster', 'workers', 'worker1', [
  'node worker1 is Ready',
  'worker1 has logged in',
])
const deploy = stepOf('deploy', 'Deploy the database', 'workload')
const quick = stepOf('quick', 'Write a file', 'workers', 'worker1')
const awaited = stepOf('awaited', 'See the target', 'workers', 'cp')
const steps = [boot, quick, join, awaited, deploy]

/** A run of 30 seconds with everything that can happen in it. */
const playRun = async (view: View): Promise<void> => {
  const pass = (seconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(seconds * 1000)
  view.event({ type: 'run-started', plan: { title: 'Bring up iscsi-ha', steps } })
  view.event({ type: 'step-started', step: boot })
  await pass(0.2)
  view.event(finished(boot, 'ok', { seconds: 0.2, saw: 'SSH answers\r\non 192.168.56.10' }))

  view.event({ type: 'step-started', step: quick })
  view.event({ type: 'step-applying', step: quick, why: 'the file is there: no: no such file' })
  await pass(1)
  view.event(finished(quick, 'changed', { seconds: 1 }))

  view.event({ type: 'step-started', step: join })
  view.event({ type: 'step-applying', step: join, why: 'node worker1 is Ready: no: not found' })
  view.event({ type: 'step-started', step: awaited })
  await pass(2.5)
  view.event({ type: 'step-progress', step: join, note: 'kubeadm join' })
  await pass(1)
  view.event(finished(awaited, 'ok', { seconds: 3.5, saw: 'one session' }))
  // Two checks at once, asked every half second; one of them reports something new after a while.
  for (let half = 0; half < 24; half += 1) {
    const saw = half < 12 ? 'NotReady' : 'NotReady, \u001b[31mpassword=hunter2hunter2\u001b[0m'
    view.event({ type: 'step-waiting', step: join, waitingFor: 'node worker1 is Ready', saw })
    view.event({ type: 'step-waiting', step: join, waitingFor: 'worker1 has logged in', saw: 'no session' })
    await pass(0.5)
  }
  view.notice('Two lines\n  of notice')
  await pass(2)
  const failure = {
    seconds: 18.5,
    reason: 'node worker1 is Ready: no: NotReady',
    hint: 'lab ssh iscsi-ha worker1',
  }
  view.event(finished(join, 'failed', failure))
  view.event(finished(deploy, 'not-reached', { reason: 'needs: Join worker1 to the cluster' }))
  view.event({
    type: 'run-finished',
    report: reportOf(
      'Bring up iscsi-ha',
      [
        resultOf(boot, 'ok'),
        resultOf(quick, 'changed'),
        resultOf(join, 'failed'),
        resultOf(awaited, 'ok'),
        resultOf(deploy, 'not-reached'),
      ],
      { seconds: 18.7 },
    ),
  })
}

const playParts = async (view: View): Promise<void> => {
  const part = (name: string, index: number, state: PartProgress['state'], more = {}): void => {
    view.part({ part: name, title: `Building the ${name}`, index, total: 3, state, ...more })
  }
  part('kernel', 1, 'waiting')
  part('kubernetes', 2, 'waiting')
  part('base-disk', 3, 'cached')
  const log = '/root/.cache/lab/log/kernel.log'
  part('kernel', 1, 'building', { fraction: 0, remaining: 325, elapsed: 0, log })
  for (let second = 1; second <= 40; second += 1) {
    await vi.advanceTimersByTimeAsync(1000)
    part('kernel', 1, 'building', {
      fraction: second / 100,
      remaining: 325 - second,
      elapsed: second,
      note: `  CC      net/core/dev${String(second)}.o`,
      log,
    })
  }
  // A builder that has stopped printing still has its line every 15 seconds.
  await vi.advanceTimersByTimeAsync(100_000)
  part('kernel', 1, 'built', { elapsed: 140, log })
  part('kubernetes', 2, 'building', { elapsed: 0 })
  await vi.advanceTimersByTimeAsync(3000)
  part('kubernetes', 2, 'failed', { elapsed: 3, note: 'make: *** [all] Error 2', log: '/root/k.log' })
}

const secrets = ['hunter2hunter2']

beforeEach(() => {
  vi.useFakeTimers({ now: new Date('2026-11-21T06:40:00Z') })
})
afterEach(() => {
  vi.useRealTimers()
})

describe('lines', () => {
  test('a run is printed as lines', async () => {
    const stream = new Captured()
    await playRun(viewOn(stream, { secrets }))
    await expect(stream.text).toMatchFileSnapshot(golden('run.lines'))
  })

  test('a run is printed as coloured lines', async () => {
    const stream = new Captured()
    await playRun(viewOn(stream, { secrets, color: true }))
    await expect(JSON.stringify(stream.text.split('\n'), null, 1)).toMatchFileSnapshot(
      golden('run.colour.txt'),
    )
  })

  test('the parts of a preparation are printed as lines', async () => {
    const stream = new Captured()
    await playParts(viewOn(stream))
    await expect(stream.text).toMatchFileSnapshot(golden('parts.lines'))
  })

  test('the clock of the view stops with what it watches and with the view', async () => {
    const view = viewOn(new Captured())
    view.event({ type: 'run-started', plan: { title: 'Run', steps: [boot] } })
    view.event({ type: 'step-started', step: boot })
    expect(vi.getTimerCount()).toBe(1)
    view.event(finished(boot, 'ok'))
    expect(vi.getTimerCount()).toBe(0)
    view.event({ type: 'step-started', step: boot })
    await view.close()
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('events', () => {
  test('a run and its parts are printed as events', async () => {
    const stream = new Captured()
    const view = viewOn(stream, { events: true, eventsStream: stream.asStream, secrets })
    await playParts(view)
    await playRun(view)
    await view.close()
    const lines = stream.text.trimEnd().split('\n')
    // Repeating the same waiting and building proves nothing more.
    const seen = new Set<string>()
    const kept = lines.filter((line) => {
      const same = line.replace(/"time":"[^"]+"/, '').replace(/"(fraction|remaining|elapsed)":[\d.]+/g, '')
      const known = seen.has(same.replace(/dev\d+/, ''))
      seen.add(same.replace(/dev\d+/, ''))
      return !known
    })
    await expect(`${kept.join('\n')}\n`).toMatchFileSnapshot(golden('events.ndjson'))
    for (const line of lines) expect(JSON.parse(line)).toMatchObject({ schema: 'lab.events/v1' })
  })

  test('no event lacks a field or has one that is undefined', () => {
    const stream = new Captured()
    const view = viewOn(stream, { events: true, eventsStream: stream.asStream })
    view.event(finished(deploy, 'not-reached'))
    view.part({ part: 'kernel', title: 'Kernel', state: 'waiting', index: 1, total: 1 })
    const [step, part] = stream.text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as object)
    expect(step).toMatchObject({ machine: null, reason: null, hint: null })
    expect(part).toMatchObject({ fraction: null, remaining: null, elapsed: null, note: null, log: null })
  })

  test.each([
    { name: 'both in files', people: new Captured(), programs: new Captured(), both: true },
    { name: 'people at a terminal', people: new Captured(true), programs: new Captured(), both: true },
    { name: 'programs at a terminal', people: new Captured(), programs: new Captured(true), both: true },
    { name: 'both at a terminal', people: new Captured(true), programs: new Captured(true), both: false },
  ])(
    'events and the view of people are both printed, unless they share a terminal ($name): $both',
    ({ people, programs, both }) => {
      const view = viewOn(people, { events: true, eventsStream: programs.asStream })
      view.notice('hello')
      expect(programs.text).toContain('"type":"notice","text":"hello"')
      expect(people.text.includes('hello')).toBe(both)
    },
  )
})

describe('which view', () => {
  const drawn = (env: NodeJS.ProcessEnv, isTTY = true, interactive = true): boolean => {
    const stream = new Captured(isTTY)
    viewOn(stream, { env, interactive }).notice('hello')
    return !stream.text.startsWith('+0.0s')
  }
  test.each([
    { name: 'a terminal', is: drawn({ TERM: 'xterm' }), want: true },
    { name: 'a terminal, but lines are asked for', is: drawn({ TERM: 'xterm' }, true, false), want: false },
    { name: 'a pipe', is: drawn({ TERM: 'xterm' }, false), want: false },
    { name: 'a dumb terminal', is: drawn({ TERM: 'dumb' }), want: false },
    { name: 'CI', is: drawn({ TERM: 'xterm', CI: 'true' }), want: false },
    { name: 'CI=false', is: drawn({ TERM: 'xterm', CI: 'false' }), want: true },
  ])('the view is redrawn in place on $name: $want', ({ is, want }) => {
    expect(is).toBe(want)
  })

  test.each([
    { isTTY: true, env: {}, want: true },
    { isTTY: false, env: {}, want: false },
    { isTTY: true, env: { TERM: 'dumb' }, want: false },
    { isTTY: true, env: { NO_COLOR: '1' }, want: false },
    { isTTY: true, env: { NO_COLOR: '' }, want: true },
    { isTTY: false, env: { FORCE_COLOR: '1' }, want: true },
    { isTTY: false, env: { FORCE_COLOR: '' }, want: true },
    { isTTY: true, env: { FORCE_COLOR: '0' }, want: false },
    { isTTY: true, env: { FORCE_COLOR: '1', NO_COLOR: '1' }, want: true },
  ])('colour is used on a terminal ($isTTY) with $env: $want', ({ isTTY, env, want }) => {
    expect(wantsColor({ isTTY }, env)).toBe(want)
  })
})

test('a closed pipe or a full disk under the view does not end the run', () => {
  const stream = new Captured()
  viewOn(stream)
  expect(() => stream.emit('error', Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))).not.toThrow()
  expect(() => stream.emit('error', Object.assign(new Error('no space'), { code: 'ENOSPC' }))).not.toThrow()
})
