import { exitCodes, type ExitCode } from '../error.js'
import { loadLab } from '../lifecycle/load-lab.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb } from '../command-line/verb.js'

const run = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadLab(nameOrPath)
  if (options.output === 'json')
    printJson(io, 'lab.validate/v1', { name: lab.name, file: lab.file, valid: true })
  else
    io.stdout.write(
      `${lab.file}: valid lab file: ${lab.name}, ${String(lab.machines.length)} machines, ${String(lab.targets.length)} targets\n`,
    )
  return exitCodes.ok
}

export const verb: Verb = {
  options: [asJson],
  looks: true,
  run,
}
