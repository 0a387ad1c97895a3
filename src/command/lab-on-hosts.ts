/** A lab whose machines exist already: its hosts are checked before anything is changed. */
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import type { View } from '../view/view.js'
import { providerInUse } from '../lifecycle/provider-in-use.js'
import type { Io, Options } from '../command-line/verb.js'

/** If the lab's key does not work at a host, a person at the terminal may be asked for passwords. */
export const askForHosts = async (lab: Lab, io: Io): Promise<void> => {
  if (lab.provider !== 'hosts') return
  const [{ keptHosts }, { useLogins }, { loginsFor }] = await Promise.all([
    import('../provider/hosts/lab-record.js'),
    import('../provider/hosts/hosts.js'),
    import('./hosts.js'),
  ])
  const kept = await keptHosts(lab)
  if (kept) useLogins(await loginsFor(kept.file, io))
}

/**
 * The lab with the addresses and the memory that its hosts really have. The first time, all hosts are checked, and
 * nothing is changed if a lab cannot use one of them.
 * @throws LabError `preflight` with every problem of every host
 */
export const labOnHosts = async (lab: Lab, options: Options, io: Io, view: View): Promise<Lab> => {
  if (options.hosts === undefined) {
    await askForHosts(lab, io)
    return lab
  }
  if (options.kubeconfig !== undefined)
    throw new LabError('bad-options', '--hosts and --kubeconfig cannot be combined', {
      hint: 'for machines with SSH: --hosts FILE; for a cluster: --kubeconfig FILE',
      exitCode: exitCodes.usage,
    })
  const inUse = await providerInUse(lab)
  const asked = options.provider ?? inUse?.name ?? 'hosts'
  if (asked !== 'hosts')
    throw new LabError(
      'other-provider',
      `--hosts names machines that exist already, but ${asked} makes its own`,
      {
        hint: inUse ? `lab down ${lab.name}` : 'use either --hosts FILE or --provider NAME',
        exitCode: exitCodes.usage,
      },
    )
  const [{ keepHosts, keptHosts, onHosts, placedHosts }, { useLogins }, { survey, describe }] =
    await Promise.all([
      import('../provider/hosts/lab-record.js'),
      import('../provider/hosts/hosts.js'),
      import('./hosts.js'),
    ])
  const kept = inUse ? await keptHosts(lab) : undefined
  const isNew = ({ name }: { readonly name: string }): boolean =>
    !kept?.machines.some((machine) => machine.name === name)
  if (kept && !lab.machines.some(isNew)) {
    await askForHosts(lab, io)
    return lab
  }
  const { file, logins, hosts, findings } = await survey(
    options.hosts,
    { ...lab, machines: lab.machines.filter(isNew) },
    options,
    io,
  )
  const refused = findings.filter(({ level }) => level === 'refuse')
  if (refused.length > 0)
    throw new LabError('preflight', refused.map(describe).join('\n'), {
      hint: [...new Set(refused.flatMap(({ fix }) => fix ?? []))].join('\n'),
      exitCode: exitCodes.host,
    })
  for (const finding of findings.filter(({ level }) => level === 'warn')) view.notice(describe(finding))
  const placed = placedHosts(file, hosts)
  const all = {
    ...placed,
    machines: [...(kept?.machines ?? []), ...placed.machines],
    returned: kept?.returned ?? [],
  }
  await keepHosts(lab, all)
  useLogins(logins)
  return onHosts(lab, all)
}
