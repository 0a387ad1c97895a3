import { exitCodes, LabError } from '../error.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { refuseNotUp } from '../lifecycle/provider-in-use.js'
import { machineOf } from '../command-line/machines.js'
import { handOver, sshArgs } from '../command-line/hand-over.js'
import { type Io, type Options, type Verb } from '../command-line/verb.js'

/** Runs scp with the lab's keys; `MACHINE:PATH` may be on either side. */
const run = async (
  nameOrPath: string,
  paths: readonly string[],
  _options: Options,
  io: Io,
): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  await refuseNotUp(lab)
  const remote = paths.filter((path) => /^[a-z0-9-]+:/.test(path))
  if (paths.length < 2 || remote.length === 0)
    throw new LabError(
      'no-machine',
      paths.length < 2 ? 'expected two paths: from, to' : 'neither path is on a machine',
      {
        hint: `lab cp ${lab.name} ./file ${lab.machines[0]?.name ?? 'machine'}:/root/`,
        exitCode: exitCodes.usage,
      },
    )
  for (const path of remote) machineOf(lab, path.slice(0, path.indexOf(':')))
  return handOver('scp', [...sshArgs(lab), '-r', ...paths], 'apt-get install -y openssh-client', io)
}

export const verb: Verb = {
  words: { paths: 'from … to' },
  run,
}
