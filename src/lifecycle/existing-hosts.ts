/** A lab whose machines exist already: its hosts are checked before anything is changed. */
import { exitCodes, LabError } from '../error.js'
import type { Lab } from '../lab/lab.js'
import type { Finding } from '../provider/hosts/asked.js'
import type { ProviderName } from '../providers.js'
import type { Consent, Operator } from './hosts-survey.js'
import { providerNameInUse, refuseOtherProvider } from './provider-in-use.js'

/** If the lab's key does not work at a host, a person at the terminal may be asked for passwords. */
export const askForHosts = async (lab: Lab, operator: Operator): Promise<void> => {
  if (lab.provider !== 'hosts') return
  const [{ keptHosts }, { useLogins }, { loginsFor }] = await Promise.all([
    import('../provider/hosts/lab-record.js'),
    import('../provider/hosts/hosts.js'),
    import('./hosts-survey.js'),
  ])
  const kept = await keptHosts(lab)
  if (kept) useLogins(await loginsFor(kept.file, operator))
}

/** @throws LabError `preflight` with every problem of every host */
const reportProblems = (
  findings: readonly Finding[],
  describe: (finding: Finding) => string,
  notice: (text: string) => void,
): void => {
  const refused = findings.filter(({ level }) => level === 'refuse')
  if (refused.length > 0)
    throw new LabError('preflight', refused.map(describe).join('\n'), {
      hint: [...new Set(refused.flatMap(({ fix }) => fix ?? []))].join('\n'),
      exitCode: exitCodes.host,
    })
  for (const finding of findings.filter(({ level, announced }) => level === 'warn' || announced))
    notice(describe(finding))
}

/** The options of `up` that say where machines come from. */
export interface HostsOptions extends Consent {
  /** A hosts.yaml. */
  readonly hosts?: string
  readonly kubeconfig?: string
  readonly provider?: ProviderName
}

/**
 * The lab with the addresses and the memory that its hosts really have. The first time, all hosts are checked, and
 * nothing is changed if a lab cannot use one of them.
 * @throws LabError `preflight` with every problem of every host
 */
export const labOnHosts = async (
  lab: Lab,
  options: HostsOptions,
  operator: Operator,
  notice: (text: string) => void,
): Promise<Lab> => {
  if (options.hosts === undefined) {
    await askForHosts(lab, operator)
    return lab
  }
  if (options.kubeconfig !== undefined)
    throw new LabError('bad-options', '--hosts and --kubeconfig cannot be combined', {
      hint: 'for machines with SSH: --hosts FILE; for a cluster: --kubeconfig FILE',
      exitCode: exitCodes.usage,
    })
  await refuseOtherProvider(lab, 'hosts', '--hosts', options.provider)
  const [{ keepHosts, keptHosts, onHosts, placedHosts }, { useLogins }, { survey, describe }] =
    await Promise.all([
      import('../provider/hosts/lab-record.js'),
      import('../provider/hosts/hosts.js'),
      import('./hosts-survey.js'),
    ])
  const kept = (await providerNameInUse(lab)) === undefined ? undefined : await keptHosts(lab)
  const isNew = ({ name }: { readonly name: string }): boolean =>
    !kept?.machines.some((machine) => machine.name === name)
  if (kept && !lab.machines.some(isNew)) {
    await askForHosts(lab, operator)
    return lab
  }
  const { file, logins, hosts, findings } = await survey(
    options.hosts,
    { ...lab, machines: lab.machines.filter(isNew) },
    options,
    operator,
  )
  reportProblems(findings, describe, notice)
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
