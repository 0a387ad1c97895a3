import { exitCodes, LabError } from '../error.js'
import { quote } from '../machine/sh.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { withLab } from '../command-line/with-lab.js'
import { printJson } from '../command-line/json.js'
import { select } from '../command-line/machines.js'
import { asJson, type Io, type Options, type Verb, theirs } from '../command-line/verb.js'

/** Runs a command on one machine, a role or all at the same time; each line starts with the machine's name. */
const run = async (
  nameOrPath: string,
  who: string,
  words: readonly string[],
  options: Options,
  io: Io,
): Promise<number> => {
  const command = theirs(words)
  const lab = await loadRunning(nameOrPath)
  const machines = select(lab, who)
  if (command.length === 0)
    throw new LabError('no-command', `no command for ${who}`, {
      hint: `lab exec ${lab.name} ${who} -- uptime`,
      exitCode: exitCodes.usage,
    })
  const text = command.map(quote).join(' ')
  const provider = await providerOf(lab)
  return withLab(lab, { io, options, keepEvents: false }, async ({ open }) => {
    const session = await open(lab, provider)
    const results = await Promise.all(
      machines.map(async ({ name }) => ({
        machine: name,
        ...(await session.machine(name).try({ text, shown: text }, { signal: io.signal, timeout: 3600 })),
      })),
    )
    if (options.output === 'json')
      // This is the output of the user's own command: it is printed unmasked, in JSON as in text.
      printJson(io, 'lab.exec/v1', { name: lab.name, command: text, results }, (printed) => printed)
    else {
      const width = Math.max(...machines.map(({ name }) => name.length))
      const prefix = (name: string, output: string): string =>
        machines.length === 1 ? output : output.replace(/^(?=.)/gm, `${name.padEnd(width)} | `)
      for (const { machine, stdout, stderr } of results) {
        io.stdout.write(prefix(machine, stdout))
        io.stderr.write(prefix(machine, stderr))
      }
    }
    return results.find(({ exitCode }) => exitCode !== 0)?.exitCode ?? exitCodes.ok
  })
}

export const verb: Verb = {
  words: { who: 'a machine, control-plane, worker, target, initiator, or all' },
  options: [asJson],
  passThrough: true,
  run,
}
