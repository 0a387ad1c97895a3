/** Where a learner's commands are run for tests and hidden faults: in a shell that has `lab`. */
import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { quote } from '../machine/sh.js'

const cli = fileURLToPath(new URL('../cli.js', import.meta.url))

export interface Desk {
  /** Runs commands without asking questions. @returns the exit code, and the end of the output */
  type(commands: string): Promise<{ readonly exitCode: number; readonly out: string }>
  close(): Promise<void>
}

/** How many characters of output are kept. */
const longest = 4000

export const openDesk = async (signal: AbortSignal): Promise<Desk> => {
  const folder = await mkdtemp(join(tmpdir(), 'lab-desk-'))
  await writeFile(join(folder, 'lab'), `#!/bin/sh\nexec ${quote(process.execPath)} ${quote(cli)} "$@"\n`, {
    mode: 0o700,
  })
  return {
    type: (commands) =>
      new Promise((resolve, reject) => {
        const child = spawn('bash', ['-euo', 'pipefail', '-c', commands], {
          cwd: folder,
          stdio: ['ignore', 'pipe', 'pipe'],
          signal,
          env: {
            ...process.env,
            NO_COLOR: '1',
            PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}`,
          },
        })
        let out = ''
        const take = (data: Buffer): void => {
          out = `${out}${data.toString()}`.slice(-longest)
        }
        child.stdout.on('data', take)
        child.stderr.on('data', take)
        child.once('error', reject)
        child.once('close', (code) => resolve({ exitCode: code ?? 128, out: out.trim() }))
      }),
    close: () => rm(folder, { recursive: true, force: true }),
  }
}
