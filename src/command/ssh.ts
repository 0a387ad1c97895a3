import { quote } from '../machine/sh.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { refuseNotUp } from '../lifecycle/provider-in-use.js'
import { machineOf } from '../command-line/machines.js'
import { handOver, sshArgs } from '../command-line/hand-over.js'
import { type Io, type Options, type Verb, theirs } from '../command-line/verb.js'

/** Opens a shell on a machine, or runs one command with the terminal as its input. ssh itself does not know roles. */
const run = async (
  nameOrPath: string,
  machine: string,
  words: readonly string[],
  _options: Options,
  io: Io,
): Promise<number> => {
  const command = theirs(words)
  const lab = await loadRunning(nameOrPath)
  await refuseNotUp(lab)
  machineOf(lab, machine)
  return handOver(
    'ssh',
    [...sshArgs(lab), machine, ...(command.length === 0 ? [] : ['--', command.map(quote).join(' ')])],
    'apt-get install -y openssh-client',
    io,
  )
}

export const verb: Verb = {
  passThrough: true,
  run,
}
