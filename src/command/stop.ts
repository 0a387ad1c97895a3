import { exitCodes, type ExitCode, LabError } from '../error.js'
import { stopAgent } from '../fencing/process.js'
import { shutDown } from '../steps/machines.js'
import { loadRunning } from './kept-lab.js'
import { providerInUse } from './provider-in-use.js'
import { healFirst, lockFor, sessionFor, viewFor } from './with-lab.js'
import { printJson } from './json.js'
import { asJson, type Io, type Options, type Verb, withWait } from './verb.js'

/** Switches every machine off in good order; disks stay. Targets go last: others have their disks there. */
const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  const view = viewFor(io, options)
  const release = await lockFor(lab, 'stop', options, io, view)
  try {
    const provider = await providerInUse(lab)
    if (!provider) throw new LabError('not-up', `${lab.name} is not up`, { hint: `lab up ${lab.name}` })
    const session = await sessionFor(lab, provider, io.signal)
    try {
      await healFirst(session, view)
      await stopAgent(lab.name)
      const targets = lab.machines.filter(({ role }) => role === 'target')
      const workers = lab.machines.filter(({ role }) => role === 'worker' || role === 'initiator')
      const others = lab.machines.filter(
        (machine) => !targets.includes(machine) && !workers.includes(machine),
      )
      for (const group of [workers, others, targets])
        await Promise.all(group.map(({ name }) => shutDown(session, name)))
    } finally {
      await session.close()
    }
    const states = await provider.states(lab)
    const running = states.filter(({ status }) => status === 'running')
    await provider.network?.release(lab)
    await view.close()
    if (options.output === 'json') printJson(io, 'lab.stop/v1', { name: lab.name, machines: states })
    else
      io.stdout.write(
        running.length === 0
          ? `${lab.name}: every machine is off; its disks are kept. To go on: lab start ${lab.name}\n`
          : `${lab.name}: still running: ${running.map(({ name }) => name).join(', ')}\n`,
      )
    return running.length === 0 ? exitCodes.ok : exitCodes.failed
  } finally {
    await view.close()
    await release()
  }
}

export const verb: Verb = {
  options: [asJson, withWait],
  run,
}
