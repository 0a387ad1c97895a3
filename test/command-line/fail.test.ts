/** Every way out of a command masks the secrets that the process knows. */
import { Writable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { fail, printFailures } from '../../src/command-line/fail.js'
import { printJson } from '../../src/command-line/json.js'
import type { Io } from '../../src/command-line/verb.js'
import { viewFor } from '../../src/command-line/with-lab.js'
import { exitCodes, LabError } from '../../src/error.js'
import { labHere } from '../../src/identity.js'
import { reportJson } from '../../src/plan/report.js'
import type { Report, Step, StepResult } from '../../src/plan/step.js'
import { keepSecret } from '../../src/view/secrets.js'

const secret = 'correct-horse-7!'
keepSecret([secret])

/** A process whose output is recorded. */
const fakeIo = (): { readonly io: Io; readonly out: () => string; readonly err: () => string } => {
  const printed = { out: '', err: '' }
  const stream = (name: 'out' | 'err'): NodeJS.WriteStream =>
    new Writable({
      write(chunk: Buffer, _, done) {
        printed[name] += chunk.toString()
        done()
      },
    }) as unknown as NodeJS.WriteStream
  const { signal } = new AbortController()
  const io = {
    stdin: process.stdin,
    stdout: stream('out'),
    stderr: stream('err'),
    signal,
    orphaned: () => signal,
    verbs: [],
  }
  return { io, out: () => printed.out, err: () => printed.err }
}

const step: Step = {
  id: 'log-in',
  title: 'Log in',
  phase: 'iSCSI',
  machine: 'worker1',
  needs: [],
  checks: [{ id: 'logged-in', title: 'worker1 is logged in', probe: () => Promise.reject(new Error()) }],
}
const failed: StepResult = {
  step,
  outcome: 'failed',
  seconds: 1,
  checks: [{ check: step.checks[0], ok: false, saw: `saw ${secret}` }],
  reason: `reason ${secret}`,
  hint: `hint ${secret}`,
}
const report: Report = {
  title: 'up',
  started: new Date(0),
  seconds: 1,
  interrupted: false,
  results: [failed],
}

describe('a secret that the process knows', () => {
  test("a secret that the process knows is masked in an error's message and hint on standard error", () => {
    const { io, err } = fakeIo()
    const error = new LabError('x', `message ${secret}`, {
      hint: `hint ${secret}`,
      exitCode: exitCodes.host,
    })
    expect(fail(io, error)).toBe(exitCodes.host)
    expect(err()).toBe('✖ message ***\n  Hint: hint ***\n')
  })

  test('a secret that the process knows is masked in the stack of a defect on standard error', () => {
    const { io, err } = fakeIo()
    const error = new Error(`message ${secret}`, { cause: new Error(`cause ${secret}`) })
    expect(fail(io, error)).toBe(exitCodes.failed)
    expect(err()).toMatch(/message \*\*\*[^]*cause \*\*\*/)
    expect(err()).not.toContain(secret)
  })

  test("a secret that the process knows is masked in a failed step's reason and hint on standard error", () => {
    const { io, err } = fakeIo()
    printFailures(labHere('iscsi'), report, io)
    expect(err()).toBe('✖ worker1: Log in: reason ***\n  Hint: hint ***\n')
  })

  test('a secret that the process knows is masked in the events of --events, and in what people see meanwhile', async () => {
    const { io, out, err } = fakeIo()
    const view = viewFor(io, { events: true })
    view.event({ type: 'step-finished', result: failed })
    view.notice(`notice ${secret}`)
    await view.close()
    const [finished, notice] = out()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object)
    expect(finished).toMatchObject({ reason: 'reason ***', hint: 'hint ***', checks: [{ saw: 'saw ***' }] })
    expect(notice).toMatchObject({ text: 'notice ***' })
    expect(err()).toContain('reason ***')
    expect(err()).not.toContain(secret)
  })

  test('a secret that the process knows is masked in -o json, even if the command passes data unmasked', () => {
    const { io, out } = fakeIo()
    printJson(io, 'lab.report/v1', {
      ...reportJson(report, (text) => text),
      left: [{ what: `left ${secret}` }],
    })
    expect(JSON.parse(out())).toMatchObject({
      results: [{ reason: 'reason ***', hint: 'hint ***', checks: [{ saw: 'saw ***' }] }],
      left: [{ what: 'left ***' }],
    })
  })
})
