/** The fencing agent's process: see fencing/process.ts. */
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { runAgent } from '../fencing/process.js'
import { type Io, loadRunning, providerOf, sessionFor } from './common.js'

export const fencingAgent = async (name: string, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(name)
  const { fencing } = lab
  if (fencing === 'none')
    throw new LabError('no-fencing', `${lab.name} has fencing: none`, { exitCode: exitCodes.usage })
  const session = await sessionFor(lab, await providerOf(lab), io.signal)
  try {
    const say = (text: string): void => {
      io.stderr.write(`${new Date().toISOString()} ${text}\n`)
    }
    await runAgent(session, fencing, say, io.signal)
  } finally {
    await session.close()
  }
  return exitCodes.ok
}
