/** A new verb is one new module and one line in the list of verbs. */
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { runCommandLine } from '../../src/command-line/command-line.js'
import { line } from '../../src/command-line/verb.js'
import { verbs } from '../../src/command/verbs.js'

let loaded = 0
const withGreet = [
  ...verbs,
  line('greet [options] <who>', 'greet somebody', () => {
    loaded++
    return import('./greet.js')
  }),
]

const lab = async (...words: readonly string[]) => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const io = {
    stdin: process.stdin,
    stdout: stdout as unknown as NodeJS.WriteStream,
    stderr: stderr as unknown as NodeJS.WriteStream,
    signal: new AbortController().signal,
    orphaned: () => new AbortController().signal,
    verbs: withGreet.map(({ usage }) => usage.split(' ')[0] ?? ''),
  }
  const exitCode = await runCommandLine(words, withGreet, '1.2.3', io)
  stdout.end()
  stderr.end()
  return { exitCode, stdout: await text(stdout), stderr: await text(stderr) }
}

test('an added verb runs with its arguments and options, and its exit code is that of lab', async () => {
  expect(await lab('greet', 'anna')).toEqual({ exitCode: 5, stdout: 'hello anna\n', stderr: '' })
  expect(await lab('greet', 'anna', '-o', 'json')).toMatchObject({ stdout: '{"hello":"anna"}\n' })
})

test('an added verb appears in the help, which does not load it', async () => {
  const before = loaded
  const { exitCode, stdout } = await lab('--help')
  expect(exitCode).toBe(0)
  expect(stdout).toMatch(/^ {2}greet \[options\] <who> +greet somebody$/m)
  expect((await lab('--version')).stdout).toBe('1.2.3\n')
  expect(loaded).toBe(before)
  expect((await lab('greet', '--help')).stdout).toContain('whom to greet')
})

test('an added verb is completed by the shell and suggested after a typing error', async () => {
  expect((await lab('completion', 'bash')).stdout).toMatch(/compgen -W '[^']*\bgreet\b/)
  const { exitCode, stderr } = await lab('gret')
  expect(stderr).toContain('Did you mean greet?')
  expect(exitCode).toBe(2)
})
