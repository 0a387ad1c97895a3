/** The server of the plain file, as it runs in the database's pod: the same program, with a folder of this host. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { onTestFinished } from 'vitest'
import { ledgerScript } from '../../src/steps/database.js'

export interface LedgerServer {
  readonly process: ChildProcess
  /** On 127.0.0.1. */
  readonly port: number
  /** Sends SIGTERM, as Kubernetes does to end a container. @returns its exit status, or the signal that ended it */
  readonly stop: () => Promise<number | string>
}

/** @param before a command that runs the rest of its words as a command, such as `nice` */
export const ledgerServer = async (
  folder: string,
  pod = 'pod-1',
  before: readonly string[] = [],
): Promise<LedgerServer> => {
  const words = [...before, 'perl', ledgerScript, folder, '127.0.0.1:0']
  const process = spawn(words[0] ?? '', words.slice(1), {
    stdio: ['ignore', 'ignore', 'pipe'],
    // A process group of its own, so that nothing outlives the test.
    detached: true,
    env: { PATH: globalThis.process.env['PATH'], HOSTNAME: pod },
  })
  const exited = once(process, 'exit') as Promise<[number | null, string | null]>
  onTestFinished(() => {
    if (process.pid !== undefined && process.exitCode === null && process.signalCode === null)
      globalThis.process.kill(-process.pid, 'SIGKILL')
  })
  const said: string[] = []
  for await (const line of createInterface({ input: process.stderr })) {
    said.push(line)
    const [, port] = /^listening on 127\.0\.0\.1:(\d+)$/.exec(line) ?? []
    if (port !== undefined)
      return {
        process,
        port: Number(port),
        stop: async () => {
          process.kill('SIGTERM')
          const [status, signal] = await exited
          return status ?? signal ?? 'gone'
        },
      }
  }
  throw new Error(`the server of the file did not start: ${said.join('\n')}`)
}
