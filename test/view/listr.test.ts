import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compileStage, Screen, underTerminal, type Played } from './terminal.js'

let stage: Awaited<ReturnType<typeof compileStage>>
beforeAll(async () => {
  stage = await compileStage()
})
afterAll(async () => {
  await stage.remove()
})

const node = (): string => `${process.execPath} ${stage.program}`

const play = (scene: string, options: Parameters<typeof underTerminal>[1] = {}): Promise<Played> =>
  underTerminal(`${node()} ${scene}`, { ...options, env: { SLOW: '0.5', ...options.env } })

/** Measured times differ from run to run. */
const timeless = (lines: readonly string[]): string[] =>
  lines.map((line) => line.replace(/\d+\.\d s/g, 'N s')).filter((line) => line !== '')

const escape = '\u001b'

/** Each frame on its own. */
const framesOf = (output: string): string[] =>
  output.split(`${escape}[?7l`).map((frame) => new Screen(100, 200).write(frame).everything.join('\n'))

const countOf = (lines: readonly string[], text: string): number =>
  lines.filter((line) => line.includes(text)).length

// The tests need the `script` of util-linux.
const linux = { skip: process.platform !== 'linux', timeout: 90_000 }

describe('on a real pseudo-terminal', linux, () => {
  test.each([
    { rows: 24, columns: 80 },
    { rows: 10, columns: 50 },
  ])('60 steps on $rows lines of $columns columns end as one line per phase', async ({ rows, columns }) => {
    const { output, exitCode } = await play('big', { rows, columns, env: { SLOW: '0.2' } })
    const screen = new Screen(rows, columns).write(output)
    expect(exitCode).toBe(0)
    expect(timeless(screen.everything)).toEqual([
      'Bring up big',
      'The lab is half way.',
      '✔ machines  10 steps, N s',
      '✔ targets  10 steps, N s',
      '✔ nodes  10 steps, N s',
      '✔ control plane  10 steps, N s',
      '✔ workers  10 steps, N s',
      '✔ workload  10 steps, N s',
      '✔ Bring up big: 60 changed, N s',
    ])
  })

  test('a running plan shows what is applied, noted and waited for', async () => {
    const { output } = await play('one')
    const frames = framesOf(output)
    const seen = (pattern: RegExp): boolean => frames.some((frame) => pattern.test(frame))
    expect(seen(/^[⠋-⠿] machines {2}0 of 1 step(?:, \d s)?$/m)).toBe(true)
    expect(
      seen(
        /^ {2}[⠋-⠿] cp {2}Boot cp(?: {2}\d s)?\n {4}› applying, because boot-cp is so: no: nothing there$/m,
      ),
    ).toBe(true)
    expect(seen(/^ {2}[⠋-⠿] cp {2}Boot cp {2}\d s\n {4}› pulling registry\.k8s\.io\/pause:3\.10$/m)).toBe(
      true,
    )
    expect(
      seen(/^ {4}› waiting until boot-cp is so; last seen: connection refused\n◼ later {2}1 step$/m),
    ).toBe(true)
  })

  test('a plan with all steps running is not higher than the terminal', async () => {
    const { output } = await play('all', { rows: 24 })
    expect(framesOf(output).some((frame) => /^… not shown: .*\d+ running$/m.test(frame))).toBe(true)
    const { everything } = new Screen(24).write(output)
    expect(timeless(everything).at(0)).toBe('Verify big')
    expect(timeless(everything)).toHaveLength(8)
    expect(countOf(everything, '10 steps already so')).toBe(6)
  })

  test('a failure keeps its reason and hint, with secrets masked', async () => {
    const { output } = await play('failed')
    expect(timeless(new Screen().write(output).everything)).toEqual([
      'Bring up small',
      '✔ machines  2 steps, N s',
      '✖ cluster  1 step, 1 failed, N s',
      '  ✖ cp  Initialise the control plane  3 min 0 s',
      '    node cp is Ready: no: NotReady, KubeletNotReady: container runtime network',
      '    not ready, *** (waited 180 s)',
      '    Hint: lab ssh small cp -- sudo journalctl -u kubelet -n 50',
      '↓ workload  1 step not reached',
      '✖ Bring up small: 1 already so, 1 changed, 1 failed, 1 not reached, N s',
    ])
    expect(output).not.toContain('s3cret')
  })

  test('the parts of a preparation are drawn', async () => {
    const { output } = await play('parts')
    const frames = framesOf(output)
    const running =
      /\[6\/11\] part6: Building part 6 {2}\d+ % {2}2 min 2\d s, about 3 min left\n {2}› CC net\/core\/dev\d\.o\n {4}log: \/root/
    expect(frames.some((frame) => running.test(frame))).toBe(true)
    expect(frames.some((frame) => frame.includes('◼ [11/11] part11: Building part 11'))).toBe(true)
    const { everything } = new Screen().write(output)
    expect(everything.filter(Boolean)).toHaveLength(13)
    expect(everything).toContain('✔ [3/11] part3: Building part 3  already there')
    expect(everything).toContain('✔ [4/11] part4: Building part 4  built in 2 min 24 s')
    expect(everything.filter(Boolean).slice(-3)).toEqual([
      '✖ [11/11] part11: Building part 11  failed after 12.0 s',
      '  make: *** Error 2',
      '  Log: /root/.cache/lab/log/x.log',
    ])
  })

  test('a run that ends before it is drawn keeps its order with what is printed afterwards', async () => {
    const { output } = await play('quick')
    expect(timeless(new Screen().write(output).everything)).toEqual([
      'Look',
      '✔ looks  1 step already so, N s',
      '✔ Look: 1 already so, N s',
      'said after the end',
    ])
  })

  test('NO_COLOR and FORCE_COLOR are respected', async () => {
    const plain = await play('quick', { env: { NO_COLOR: '1' } })
    expect(plain.output).not.toMatch(new RegExp(`${escape}\\[\\d+m`))
    const coloured = await play('quick')
    expect(coloured.output).toContain(`${escape}[32m✔`)
    const piped = await underTerminal(`FORCE_COLOR=1 ${node()} quick | cat`)
    expect(piped.output).toContain(`${escape}[32mok `)
  })

  test('plain lines are printed in CI, on a dumb terminal and through a pipe', async () => {
    for (const env of [{ CI: 'true' }, { TERM: 'dumb' }])
      expect((await play('quick', { env })).output).toMatch(/^\S*\+\d\.\ds/)
    expect((await underTerminal(`${node()} quick | cat`)).output).toMatch(/^\+\d\.\ds/)
  })

  test('--events on a terminal prints events only', async () => {
    const { output } = await play('quick --events')
    for (const line of output.trim().split('\r\n')) expect(JSON.parse(line)).toHaveProperty('schema')
  })
})

describe('the view does not hold up the process', linux, () => {
  test('Ctrl-C reaches the caller, and no output is lost', async () => {
    const began = performance.now()
    const { output, exitCode } = await play('interrupted')
    expect(exitCode).toBe(130)
    expect(performance.now() - began).toBeLessThan(5000)
    const { everything } = new Screen().write(output)
    expect(everything.slice(0, 2)).toEqual(['Wait', 'interrupted; ending'])
    expect(everything[2]).toMatch(/^↓ waits {2}0 of 1 step.*, stopped$/)
  })

  test('a view that nobody closed does not keep the process alive', async () => {
    const { output, exitCode } = await play('forgotten')
    expect(exitCode).toBe(0)
    expect(new Screen().write(output).everything.join('\n')).toContain('waits')
  })

  test('output of others on standard error and uncaught errors stay visible', async () => {
    const { output, exitCode } = await play('defect')
    expect(exitCode).toBe(1)
    expect(output).toContain('said to standard error')
    expect(output).toContain('TypeError: a defect')
  })
})
