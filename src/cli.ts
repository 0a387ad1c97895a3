#!/usr/bin/env node
/** The only place that touches the process, its signals and its exit code. */
import { closeSync, openSync } from 'node:fs'
import { isatty } from 'node:tty'
import { runCommandLine } from './command/command-line.js'
import type { Io } from './command/verb.js'
import { verbs } from './command/verbs.js'
import { exitCodes, Interrupted, LabError } from './error.js'
import { version } from './version.js'

const abort = new AbortController()
// A terminal that does not know its width says 0, and listr2 writes a letter a line then.
if (process.stdout.columns === 0) process.stdout.columns = 80

/** Anything but a no, and an end of input, is a yes: whoever presses return wants to go on. */
const ask = async (question: string): Promise<boolean> => {
  const { createInterface } = await import('node:readline/promises')
  // The terminal stays as it is: Ctrl-C is the signal that it always is.
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false })
  const ended = new Promise<string>((resolve) => lines.once('close', () => resolve('no')))
  try {
    const answer = lines.question(`${question} [Y/n] `, { signal: abort.signal })
    return !/^\s*n/i.test(await Promise.race([answer, ended]))
  } finally {
    lines.close()
  }
}
/** A line that is typed unseen. @throws Interrupted on Ctrl-C, or an end of input */
const askSecret = async (question: string): Promise<string> => {
  const [{ createInterface }, { Writable }] = await Promise.all([
    import('node:readline'),
    import('node:stream'),
  ])
  process.stderr.write(question)
  // Node echoes what is typed into the output that it is given: here that is nowhere.
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true })
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once('line', resolve)
      lines.once('SIGINT', () => process.kill(process.pid, 'SIGINT'))
      lines.once('close', () => reject(new Interrupted()))
      abort.signal.addEventListener('abort', () => reject(new Interrupted()))
    })
  } finally {
    lines.close()
    process.stderr.write('\n')
  }
}

/** Aborted when the process that started this one, and can send it messages, has ended. */
const orphaned = (): AbortSignal => {
  const gone = new AbortController()
  process.once('disconnect', () => gone.abort())
  return gone.signal
}

const io: Io = {
  stdout: process.stdout,
  stderr: process.stderr,
  signal: abort.signal,
  orphaned,
  verbs: verbs.map(({ usage }) => usage.split(' ')[0] ?? ''),
  ...(process.stdin.isTTY && process.stderr.isTTY ? { ask, askSecret } : {}),
}

/** Which of our three files are terminals; of one that is gone, nobody could tell any more. */
const terminals = [0, 1, 2].filter((fd) => isatty(fd))

/**
 * Ends the process. Node gives a terminal its settings back at its end, and aborts where that terminal is gone; so
 * other files take its place.
 */
const exit = (code: number): never => {
  if (hungUp)
    for (const fd of terminals) {
      closeSync(fd)
      openSync('/dev/null', 'r+')
    }
  process.exit(code)
}

/**
 * Ctrl-C lets the step that is under way end and tidies up; a second one does not wait for that. A terminal that is
 * closed ends the work in the same way, but never counts as the second: it may say so more than once, and whoever
 * logs out is often sent both signals.
 */
let asked = false
let hungUp = false as boolean
const onSignal = (signal: NodeJS.Signals): void => {
  if (signal === 'SIGHUP') hungUp = true
  else if (asked) exit(exitCodes.interrupted)
  else asked = true
  if (abort.signal.aborted) return
  process.stderr.write('\ninterrupted: stopping; once more to stop at once\n')
  abort.abort(new Interrupted())
}

let exitCode: number = exitCodes.ok
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
/**
 * Why what was asked for could not be written. A reader that went away (`lab list | head -1`) is no reason, and
 * neither is a terminal that was closed.
 */
let lost: Error | undefined
const onLost = (error?: NodeJS.ErrnoException | null): void => {
  if (error?.code === 'EIO') hungUp = true
  if (error && error.code !== 'EPIPE' && !(error.code === 'EIO' && process.stdout.isTTY)) lost ??= error
}
process.stdout.on('error', onLost)
process.stderr.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EIO') hungUp = true
})

/** Prints an error. What that takes is loaded only now: most commands never need it. */
const fail = async (error: unknown): Promise<number> => (await import('./command/fail.js')).fail(io, error)

/** Ends the process once what it printed has left; says so where standard output was lost. */
const endOf = async (code: number): Promise<void> => {
  const ended =
    lost && code === exitCodes.ok
      ? await fail(new LabError('lost-output', `standard output: ${lost.message}`))
      : code
  process.stderr.write('', () => exit(ended))
}

try {
  exitCode = await runCommandLine(process.argv.slice(2), verbs, version, io)
} catch (error) {
  exitCode = await fail(abort.signal.aborted ? new Interrupted() : error)
}
// Nothing that is written to a terminal that is gone is ever said to have left.
if (hungUp) exit(exitCode)
// What is written to a pipe must have left before the process ends.
process.stdout.write('', (error) => {
  onLost(error)
  endOf(exitCode).catch(() => exit(exitCodes.failed))
})
