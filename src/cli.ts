#!/usr/bin/env node
/** The only place that touches the process, its signals and its exit code. */
import { closeSync, openSync } from 'node:fs'
import { isatty } from 'node:tty'
import { runCommandLine } from './command-line/command-line.js'
import type { Io } from './command-line/verb.js'
import { verbs } from './command/verbs.js'
import { exitCodes, Interrupted, LabError } from './error.js'
import { version } from './package.js'

const abort = new AbortController()
// A terminal of unknown width reports 0 columns, for which listr2 would print one letter per line.
if (process.stdout.columns === 0) process.stdout.columns = 80

/** Any answer but no means yes, and so does the end of input: people who just press return want to continue. */
const ask = async (question: string): Promise<boolean> => {
  const { createInterface } = await import('node:readline/promises')
  // The terminal stays in its normal mode, in which Ctrl-C sends a signal.
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false })
  const ended = new Promise<string>((resolve) => lines.once('close', () => resolve('no')))
  try {
    const answer = lines.question(`${question} [Y/n] `, { signal: abort.signal })
    return !/^\s*n/i.test(await Promise.race([answer, ended]))
  } finally {
    lines.close()
  }
}
/** A line that is not shown while it is typed. @throws Interrupted on Ctrl-C, or at the end of input */
const askSecret = async (question: string): Promise<string> => {
  const [{ createInterface }, { Writable }] = await Promise.all([
    import('node:readline'),
    import('node:stream'),
  ])
  process.stderr.write(question)
  // Node echoes typed characters to this output, which discards them.
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

/** Aborted when the parent process, if it is connected by an IPC channel, has ended. */
const orphaned = (): AbortSignal => {
  const gone = new AbortController()
  process.once('disconnect', () => gone.abort())
  return gone.signal
}

const io: Io = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  signal: abort.signal,
  orphaned,
  verbs: verbs.map(({ usage }) => usage.split(' ')[0] ?? ''),
  ...(process.stdin.isTTY && process.stderr.isTTY ? { ask, askSecret } : {}),
}

/**
 * Which of the three standard files are terminals. This is asked now, since a closed terminal cannot be recognized
 * later.
 */
const terminals = [0, 1, 2].filter((fd) => isatty(fd))

/**
 * Ends the process. Node restores the settings of each terminal when it exits, and aborts if that terminal is gone;
 * so the closed files are replaced by others first.
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
 * Milliseconds within which two signals are one request: programs that run another one, such as `timeout` and npm, pass
 * on a signal that the other one gets as well.
 */
const together = 300

/**
 * The first Ctrl-C lets the current step end and cleans up; the second one does not wait for that. Closing the
 * terminal stops the work in the same way, but never counts as the second request: it may send more than one signal,
 * and logging out often sends both.
 */
let asked: number | undefined
let hungUp = false as boolean
const onSignal = (signal: NodeJS.Signals): void => {
  const now = performance.now()
  if (signal === 'SIGHUP') hungUp = true
  else if (asked === undefined) asked = now
  else if (now - asked > together) exit(exitCodes.interrupted)
  if (abort.signal.aborted) return
  process.stderr.write('\ninterrupted: stopping; press Ctrl-C again to stop at once\n')
  abort.abort(new Interrupted())
}

let exitCode: number = exitCodes.ok
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
/**
 * Why standard output could not be written. A reader that went away (`lab list | head -1`) or a closed terminal is no
 * error.
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

/** Prints an error. The code for this is loaded only when needed, since most commands never need it. */
const fail = async (error: unknown): Promise<number> =>
  (await import('./command-line/fail.js')).fail(io, error)

/** Ends the process once its output has been written, and reports output that was lost. */
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
// Writes to a closed terminal never complete.
if (hungUp) exit(exitCode)
// Output to a pipe must be written before the process ends.
process.stdout.write('', (error) => {
  onLost(error)
  endOf(exitCode).catch(() => exit(exitCodes.failed))
})
