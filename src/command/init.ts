import { Option } from 'commander'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import { initLab } from '../lab/load.js'
import { cannotWrite } from '../command-line/cannot-write.js'
import { type Io, type Options, type Verb } from '../command-line/verb.js'

const run = async (
  name: string,
  options: Options & { readonly from?: string; readonly force?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const file = `${name}.yaml`
  const text = initLab(name, options.from)
  if (existsSync(file) && !options.force)
    throw new LabError('file-exists', `${file} exists already`, {
      hint: `lab validate ./${file}, or lab init ${name} --force to replace it`,
      exitCode: exitCodes.usage,
    })
  await writeFile(file, text).catch(cannotWrite(file))
  io.stdout.write(`${file} written. Edit it, then: lab validate ./${file} && lab up ./${file}\n`)
  return exitCodes.ok
}

export const verb: Verb = {
  words: { name: 'the name of the new lab' },
  options: [
    new Option('--from <lab>', 'start from a shipped lab'),
    new Option('--force', 'replace an existing file'),
  ],
  looks: true,
  run,
}
