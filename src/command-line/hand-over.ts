/** Programs of this host that take over the terminal: ssh, scp, kubectl. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { pathsOf } from '../state.js'
import type { Io } from './verb.js'

/** Runs a program of this host on our terminal, and returns its exit code. */
export const handOver = async (
  program: string,
  args: readonly string[],
  hint: string,
  io: Io,
): Promise<number> => {
  const child = spawn(program, args, { stdio: 'inherit' })
  // Ctrl-C reaches the program directly; a signal sent only to us is passed on.
  io.signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true })
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
    return code ?? (signal === 'SIGINT' || io.signal.aborted ? exitCodes.interrupted : exitCodes.failed)
  } catch (error) {
    throw new LabError('no-program', `${program} does not start: ${(error as Error).message}`, {
      hint,
      exitCode: exitCodes.host,
    })
  }
}

export const sshArgs = (lab: Lab): readonly string[] => ['-F', pathsOf(lab).sshConfig]
