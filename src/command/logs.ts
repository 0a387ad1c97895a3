import { Option } from 'commander'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { groupOf } from '../provider/provider.js'
import { readIfThere } from '../state.js'
import { maskKnown } from '../view/secrets.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { providerOf } from '../lifecycle/provider-in-use.js'
import { type Io, type Options, type Verb } from '../command-line/verb.js'

/** Prints the end of a machine's console or its whole journal. */
const run = async (
  nameOrPath: string,
  machine: string,
  options: Options & { readonly lines: string; readonly journal?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  if (!/^[1-9]\d*$/.test(options.lines))
    throw new LabError('bad-lines', `--lines ${options.lines}: expected a number, 1 or more`, {
      exitCode: exitCodes.usage,
    })
  const provider = await providerOf(lab)
  if (!lab.machines.some(({ name }) => name === machine))
    throw new LabError('no-machine', `${lab.name} has no machine ${machine}`, {
      hint: `its machines: ${lab.machines.map(({ name }) => name).join(', ')}`,
      exitCode: exitCodes.usage,
    })
  if (options.journal) {
    const { shell } = await import('../machine/sh.js')
    const { withLab } = await import('../command-line/with-lab.js')
    const printed = await withLab(lab, { io, options, keepEvents: false }, async ({ open }) =>
      (await open(lab, provider)).machine(machine).run(shell`journalctl --no-pager --lines=${options.lines}`),
    )
    io.stdout.write(`${maskKnown(printed)}\n`)
    return exitCodes.ok
  }
  const log = groupOf(provider, 'console').log(lab, machine)
  // A long console log has been rotated, and the current file may hold only a few lines.
  const [older = '', newest = ''] = await Promise.all([`${log}.1`, log].map(readIfThere))
  const text = older + newest
  io.stdout.write(`${maskKnown(text.trimEnd().split('\n').slice(-Number(options.lines)).join('\n'))}\n`)
  return exitCodes.ok
}

export const verb: Verb = {
  options: [
    new Option('-n, --lines <count>', 'the number of lines').default('40'),
    new Option('--journal', "print the machine's journal instead"),
  ],
  looks: true,
  run,
}
