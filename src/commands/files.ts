/** Commands about lab files and what is made of them: validate, init, render, schema, prepare. */
import { existsSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { exitCodes, type ExitCode, LabError, messageOf } from '../error.js'
import { initLab } from '../lab/load.js'
import { jsonSchema } from '../lab/schema.js'
import { machineFiles } from '../machine/files.js'
import { renderVagrantfile } from '../provider/vagrant/vagrantfile.js'
import { allProviders, chooseProvider, providerNamed } from '../provider/registry.js'
import { manifestsOf } from '../steps/database.js'
import { storageManifest } from '../steps/storage.js'
import { workloadManifests } from '../steps/workloads.js'
import { makeFolder } from '../trust.js'
import { type Io, loadLab, lockFor, type Options, printJson } from './common.js'
import { viewFor } from './viewing.js'
import { prepareProvider } from './up.js'

export const validate = async (nameOrPath: string, options: Options, io: Io): Promise<ExitCode> => {
  const lab = await loadLab(nameOrPath)
  if (options.output === 'json')
    printJson(io, 'lab.validate/v1', { name: lab.name, file: lab.file, valid: true })
  else
    io.stdout.write(
      `${lab.file}: a good lab file: ${lab.name}, ${String(lab.machines.length)} machines, ${String(lab.targets.length)} targets\n`,
    )
  return exitCodes.ok
}

/** Where something cannot be written, another place helps. */
const cannotWrite =
  (path: string) =>
  (error: unknown): never => {
    const { code } = (error instanceof LabError ? error.cause : error) as NodeJS.ErrnoException
    const why = messageOf(error)
    throw new LabError(
      'cannot-write',
      `${path} cannot be written: ${code === undefined || why.startsWith(code) ? '' : `${code}: `}${why}`,
      { exitCode: exitCodes.usage, cause: error },
    )
  }

export const init = async (
  name: string,
  options: Options & { readonly from?: string; readonly force?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const file = `${name}.yaml`
  const text = initLab(name, options.from)
  if (existsSync(file) && !options.force)
    throw new LabError('file-exists', `${file} is there already`, {
      hint: `lab validate ./${file}, or lab init ${name} --force to replace it`,
      exitCode: exitCodes.usage,
    })
  await writeFile(file, text).catch(cannotWrite(file))
  io.stdout.write(`${file} written. Edit it, then: lab validate ./${file} && lab up ./${file}\n`)
  return exitCodes.ok
}

/** Every generated file, as it would lie on the machines; secrets made up by lab are shown as placeholders. */
export const render = async (
  nameOrPath: string,
  folder: string,
  options: Options,
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadLab(nameOrPath)
  const kind = options.provider ?? lab.provider ?? 'uml'
  const provider = await providerNamed(kind)
  const written: string[] = []
  const write = async (path: string, content: string, mode = 0o644): Promise<void> => {
    const full = join(folder, path)
    try {
      await makeFolder(dirname(full), 0o777)
      // A file that is there would keep its mode.
      await rm(full, { force: true })
      await writeFile(full, content, { mode })
    } catch (error) {
      cannotWrite(full)(error)
    }
    written.push(full)
  }
  await write('Vagrantfile', renderVagrantfile(lab, kind === 'libvirt' ? 'libvirt' : 'virtualbox'))
  for (const machine of lab.machines)
    for (const { path, content, mode } of machineFiles(lab, machine, {
      secrets: { bootstrapToken: 'aaaaaa.made-up-by-lab00' },
      lunDevice: (index) => provider.lunDevice(index),
      patience: provider.patience ?? 1,
    }))
      await write(join('machines', machine.name, path), content, mode)
  for (const { name, text } of manifestsOf(lab)) await write(join('manifests', `${name}.yaml`), text, 0o600)
  if (lab.storage.length > 0) await write(join('manifests', 'storage.yaml'), storageManifest(lab))
  for (const { path, text } of workloadManifests(lab)) await write(join('manifests', path), text, 0o600)
  if (options.output === 'json')
    printJson(io, 'lab.render/v1', { name: lab.name, provider: kind, files: written })
  else io.stdout.write(`${written.join('\n')}\n`)
  return exitCodes.ok
}

export const schema = (io: Io): ExitCode => {
  io.stdout.write(`${JSON.stringify(jsonSchema(), null, 2)}\n`)
  return exitCodes.ok
}

/** The slow part, beforehand: for a workshop, a flight, CI. */
export const prepare = async (
  nameOrPath: string,
  options: Options & { readonly prune?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadLab(nameOrPath)
  const view = viewFor(io, options)
  const release = await lockFor(lab, 'prepare', options, io, view)
  try {
    const provider = await chooseProvider(options.provider, lab, io.signal)
    await prepareProvider(lab, provider, io, view)
    await view.close()
    if (options.prune) {
      const { pruneParts } = await import('../parts/parts.js')
      const keep = (await Promise.all((await allProviders()).map((each) => each.partsInUse()))).flat()
      for (const { path } of await pruneParts({ keep })) io.stdout.write(`removed ${path}\n`)
    }
    if (!options.events)
      io.stdout.write(`Everything that ${lab.name} is made of is here: lab up ${lab.name}\n`)
    return exitCodes.ok
  } finally {
    await view.close()
    await release()
  }
}
