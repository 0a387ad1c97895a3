/** The text that people read once a lab is up. */
import { machinesWith, type Lab, nfsServerOf, nodesOf, portalOf } from '../lab/lab.js'
import { sizeText } from '../lab/units.js'
import type { Report } from '../plan/step.js'
import { loggedInCheck } from '../steps/lun-use.js'
import { nodeVersionCheck } from '../steps/nodes.js'

/** The next steps, in the order in which a new user needs them. */
export const summary = (lab: Lab, report: Report): string => {
  const width = Math.max(...lab.machines.map(({ name }) => name.length))
  if (lab.cluster)
    return [
      '',
      `${lab.name} uses ${lab.cluster.context} at ${lab.cluster.server} (${report.seconds.toFixed(1)} s).`,
      '',
      'Try next',
      `  lab run ${lab.name} --all`,
      `  lab verify ${lab.name}`,
      `  lab down ${lab.name}, which leaves the cluster as it was`,
      '',
    ].join('\n')
  const saw = (id: string): string =>
    report.results.flatMap(({ checks }) => checks).find(({ check }) => check.id === id)?.saw ?? ''
  const worker = machinesWith(lab, 'worker')[0]
  const node = nodesOf(lab)[0]
  return [
    '',
    `${lab.name} is up (${report.seconds.toFixed(1)} s).`,
    '',
    'Machines',
    ...lab.machines.map(
      ({ name, role, address }) => `  ${name.padEnd(width)}  ${address.padEnd(15)}  ${role}`,
    ),
    '',
    ...(lab.targets.length > 0 ? ['iSCSI'] : []),
    ...lab.targets.flatMap((target) =>
      target.luns.map(
        ({ lun, size }) =>
          `  LUN ${String(lun)}, ${sizeText(size).replace(/(?=[KMGT]iB)/, ' ')}, at ${portalOf(lab, target)}, ${target.iqn}`,
      ),
    ),
    ...lab.filesystems.map(({ initiator }) => `  logged in: ${initiator}; the disk has an ext4 file system`),
    ...(lab.database?.volume.kind === 'lun' ? [`  logged in: ${saw(loggedInCheck)}`] : []),
    ...(lab.kubernetes
      ? [
          ...(lab.targets.length > 0 ? [''] : []),
          'Kubernetes',
          ...nodesOf(lab).map(({ name }) => `  ${name.padEnd(width)}  ${saw(nodeVersionCheck(name))}`),
        ]
      : []),
    ...(lab.database
      ? [
          '',
          'Database',
          `  inside    ${lab.database.name}:3306`,
          `  outside   ${worker?.address ?? ''}:${String(lab.database.nodePort)}, in the lab's network; from this host: lab forward ${lab.name} ${worker?.name ?? ''}:${String(lab.database.nodePort)}`,
          `  user      ${lab.database.user}, database ${lab.database.database}`,
        ]
      : []),
    ...(lab.storage.length > 0
      ? [
          '',
          'Storage classes',
          ...lab.storage.map(
            (storage) =>
              `  ${storage.class.padEnd(width)}  ${storage.kind === 'nfs' ? `on ${nfsServerOf(lab)?.name ?? ''}, from every node` : 'on the node of its pod'}${storage.default ? ', the default' : ''}`,
          ),
        ]
      : []),
    ...(lab.workloads.length > 0
      ? ['', 'Workloads', ...lab.workloads.flatMap(({ ready }) => ready.map((what) => `  ${what}`))]
      : []),
    '',
    'Try next',
    ...(node
      ? [
          `  lab kubectl ${lab.name} -- get pods -o wide`,
          `  lab ssh ${lab.name} ${worker?.name ?? node.name}`,
        ]
      : [`  lab ssh ${lab.name} ${lab.machines[0]?.name ?? ''}`, `  lab exec ${lab.name} all -- uptime`]),
    ...lab.experiments.slice(0, 1).map(({ name }) => `  lab run ${lab.name} ${name}`),
    `  lab verify ${lab.name}`,
    '',
  ].join('\n')
}
