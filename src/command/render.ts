import { rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Option } from 'commander'
import { exitCodes, type ExitCode, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import { machineFiles } from '../machine/files.js'
import { renderVagrantfile } from '../provider/vagrant/vagrantfile.js'
import { providerNamed } from '../provider/load.js'
import { manifestsOf } from '../steps/database.js'
import { storageManifest } from '../steps/storage.js'
import { workloadManifests } from '../steps/workloads.js'
import { makeFolder } from '../trust.js'
import { cannotWrite } from '../command-line/cannot-write.js'
import { loadLab } from '../lifecycle/load-lab.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb, withProvider } from '../command-line/verb.js'

/** Prints the least rights that lab needs on an existing cluster, for its administrator. */
const printRbac = async (lab: Lab, io: Io): Promise<ExitCode> => {
  const [{ rbacManifest }, { refusalOf }, { faultNamed }, { registry }, { homeOf }] = await Promise.all([
    import('../trial/rights.js'),
    import('../fault/fault.js'),
    import('../trial/injection.js'),
    import('../registry.js'),
    import('../provider/cluster/lab-record.js'),
  ])
  const provider = await providerNamed('cluster')
  const needsMore = (fault: string): boolean => refusalOf(faultNamed(registry, fault), provider) !== undefined
  const experiments = lab.experiments.flatMap(({ name }) =>
    registry.experiments.filter(
      (experiment) =>
        experiment.name === name &&
        experiment.workload !== true &&
        !(experiment.faults ?? []).some(needsMore),
    ),
  )
  const scenarios =
    homeOf(lab) === undefined
      ? []
      : lab.scenarios.filter(({ inject }) => !inject.some(({ fault }) => needsMore(fault)))
  if (experiments.length + scenarios.length === 0)
    throw new LabError(
      'no-experiments',
      `${lab.name} has no experiments and no scenarios that can run on an existing cluster`,
      {
        hint: 'lab list',
        exitCode: exitCodes.usage,
      },
    )
  io.stdout.write(rbacManifest(lab, experiments, scenarios))
  return exitCodes.ok
}

/** Writes every generated file as it would be on the machines; generated secrets are shown as placeholders. */
const run = async (
  nameOrPath: string,
  folder: string | undefined,
  options: Options & { readonly rbac?: boolean },
  io: Io,
): Promise<ExitCode> => {
  if (options.rbac) return printRbac(await loadLab(nameOrPath), io)
  const into = folder ?? 'rendered'
  const lab = await loadLab(nameOrPath)
  const kind = options.provider ?? lab.provider ?? 'uml'
  const provider = await providerNamed(kind)
  const written: string[] = []
  const write = async (path: string, content: string, mode = 0o644): Promise<void> => {
    const full = join(into, path)
    try {
      await makeFolder(dirname(full), 0o777)
      // An existing file would keep its mode.
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
      secrets: { bootstrapToken: 'aaaaaa.made-up-by-lab00', clusterKey: 'made-up-by-lab' },
      lunDevice: provider.disks?.lunDevice,
      slowdown: provider.slowdown ?? 1,
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

export const verb: Verb = {
  words: { folder: 'where to; default: ./rendered' },
  options: [
    withProvider,
    new Option('--rbac', 'print the least rights that it needs on an existing cluster, as manifests'),
    asJson,
  ],
  looks: true,
  run,
}
