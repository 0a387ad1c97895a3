/**
 * The steps of a lab by subject, in the order in which they are shown. Steps that need a capability that the provider
 * lacks are left out, with the reason.
 */
import type { Step } from '../context.js'
import {
  initiatorsOf,
  isPaired,
  type Lab,
  type MachineSpec,
  machinesWith,
  nfsServerOf,
  nodesOf,
  type Role,
  targetNamed,
} from '../lab/lab.js'
import type { FileOptions } from '../machine/machine-file.js'
import { backwards, inTurn, planOf } from '../plan/plan.js'
import { equips, lacks, lacksStart, lacksSwitches, type Provider } from '../provider/provider.js'
import * as addons from './addons.js'
import * as configuration from './configuration.js'
import * as controlPlane from './control-plane.js'
import * as database from './database.js'
import * as databaseRows from './database-rows.js'
import * as endpoint from './endpoint.js'
import * as fencing from './fencing.js'
import * as filesystems from './filesystem.js'
import * as filesystemSize from './filesystem-size.js'
import * as initiator from './initiator.js'
import * as iscsiVolume from './iscsi-volume.js'
import * as loan from './existing-machines.js'
import * as lunGuard from './lun-guard.js'
import * as lunUse from './lun-use.js'
import * as machines from './machines.js'
import * as nodes from './nodes.js'
import * as pair from './pair.js'
import * as podNetwork from './pod-network.js'
import * as refusal from './refused-logins.js'
import * as routes from './routes.js'
import * as storage from './storage.js'
import * as target from './target.js'
import * as workers from './workers.js'
import * as workloads from './workloads.js'

/** Leaves a step out for this reason, if there is one. Its result exists anyway, so later steps stay. */
const unless = (why: string | undefined, step: Step): Step =>
  why === undefined ? step : { ...step, leftOut: { why, given: true } }

/** Leaves a step out for this reason, if there is one, together with the steps that need it. */
const without = (why: string | undefined, step: Step): Step =>
  why === undefined ? step : { ...step, leftOut: { why, given: false } }

/** The network, if the provider makes one. */
export const networked = (lab: Lab, provider: Provider): Step =>
  unless(lacks(provider, 'network'), machines.createNetwork(lab))

/** A running machine, if the provider can switch it on. */
export const booted = (lab: Lab, provider: Provider, machine: MachineSpec, options: FileOptions): Step =>
  // The owners of machines that somebody else made switch them on.
  unless(
    provider.loan ? lacks(provider, 'machines') : lacksStart(provider),
    machines.boot(lab, machine, options),
  )

/** The running machines in the order of their start. Targets come first, since they serve the disks of others. */
export const runningSteps = (lab: Lab, provider: Provider, options: FileOptions): readonly Step[] => {
  const of = (...roles: readonly Role[]): readonly Step[] =>
    machinesWith(lab, ...roles).map((machine) => booted(lab, provider, machine, options))
  return inTurn(
    [networked(lab, provider)],
    of('target'),
    of('control-plane', 'nfs'),
    of('worker', 'initiator'),
    [fencing.watchWorkers(lab)],
  )
}

/** Cuts the power of all machines at once, where the provider can: an orderly end would take time, and write. */
export const cutSteps = (lab: Lab, provider: Provider, names: readonly string[]): readonly Step[] =>
  inTurn(
    [fencing.endAgent(lab)],
    names.map((name) => without(lacks(provider, 'power'), machines.cutPower(lab, name))),
    backwards(planOf('', [networked(lab, provider)])).steps,
  )

export const machineSteps = (
  lab: Lab,
  provider: Provider,
  options: FileOptions,
  gone: readonly string[],
): readonly Step[] => [
  networked(lab, provider),
  ...gone.map((name) => unless(lacks(provider, 'machines'), machines.remove(lab, name))),
  ...lab.machines.flatMap((machine) => {
    const boot = booted(lab, provider, machine, options)
    const connect = configuration.connect(lab, machine)
    const configure = configuration.configure(lab, machine, options, gone)
    if (!equips(provider, lab)) return [boot, connect, configure]
    const equip = loan.equipMachine(lab, machine, options)
    const equipped = [equip, { ...configure, needs: [...configure.needs, equip.id] }]
    if (!provider.loan) return [boot, connect, ...equipped]
    const take = loan.takeMachine(lab, machine)
    return [boot, take, { ...connect, needs: [...connect.needs, take.id] }, ...equipped]
  }),
]

export const iscsiSteps = (lab: Lab, provider: Provider): readonly Step[] => [
  ...lab.targets.flatMap((each) =>
    isPaired(each)
      ? pair.pairSteps(lab, each).map((step) => without(lacksSwitches(provider), step))
      : [without(lacks(provider, 'disks'), target.serveTarget(lab, each))],
  ),
  ...initiatorsOf(lab).map((machine) => initiator.prepareInitiator(lab, machine)),
  ...lab.targets.map((each) => refusal.proveRefusal(lab, each)).filter((step) => step !== undefined),
  ...lab.filesystems.flatMap((filesystem) => [
    initiator.logIn(lab, filesystem),
    filesystems.makeFilesystem(lab, filesystem),
    filesystemSize.growFilesystem(lab, filesystem),
  ]),
]

/** Machines that were just equipped have no images yet, and nothing of a cluster starts without them. */
const withImages = (lab: Lab, provider: Provider, machine: MachineSpec | undefined, step: Step): Step =>
  equips(provider, lab) && machine ? { ...step, needs: [...step.needs, `load-images-${machine.name}`] } : step

export const kubernetesSteps = (lab: Lab, provider: Provider): readonly Step[] => {
  const spec = lab.kubernetes
  if (!spec) return []
  const [first, ...controlPlanes] = machinesWith(lab, 'control-plane')
  return [
    ...nodesOf(lab).map((machine) => nodes.startContainerd(lab, machine)),
    withImages(lab, provider, first, controlPlane.initControlPlane(lab)),
    ...controlPlanes.map((machine) =>
      withImages(lab, provider, machine, controlPlane.joinControlPlane(lab, machine)),
    ),
    nodes.forgetNodes(lab),
    ...machinesWith(lab, 'worker').map((machine) =>
      withImages(lab, provider, machine, workers.joinWorker(lab, machine)),
    ),
    ...nodesOf(lab).map((machine) => routes.routePods(lab, machine)),
    ...nodesOf(lab).map((machine) => nodes.readyNode(lab, machine, spec)),
    addons.installDns(lab),
    controlPlane.proveControlPlane(lab),
    ...endpoint.proveEndpoint(lab),
    addons.proveProxy(lab),
    ...(machinesWith(lab, 'worker').some(({ iqn }) => iqn !== undefined) ? [lunGuard.guardLuns(lab)] : []),
    fencing.watchWorkers(lab),
  ]
}

export const storageSteps = (lab: Lab, provider: Provider): readonly Step[] => {
  const server = nfsServerOf(lab)
  return [
    ...(server ? [storage.serveNfs(lab, server)] : []),
    ...(server ? nodesOf(lab).map((machine) => storage.mountNfs(lab, machine)) : []),
    ...nodesOf(lab).map((machine) =>
      unless(lacks(provider, 'images'), storage.loadImages(lab, machine, provider)),
    ),
    ...(lab.storage.length > 0 ? [storage.provideStorage(lab)] : []),
  ]
}

export const workloadSteps = (lab: Lab): readonly Step[] => {
  let before: string | undefined
  return lab.workloads.map((workload) => {
    const step = workloads.deployWorkload(lab, workload, before)
    before = step.id
    return step
  })
}

export const databaseSteps = (lab: Lab): readonly Step[] => {
  const spec = lab.database
  if (!spec) return []
  const { volume } = spec
  const onLun = volume.kind === 'lun' ? volume : undefined
  return [
    ...(onLun
      ? [
          iscsiVolume.createSecret(lab, targetNamed(lab, onLun.target)),
          iscsiVolume.proveVolume(lab, spec, onLun),
        ]
      : []),
    database.deployDatabase(lab, spec),
    ...(onLun ? [filesystemSize.growVolume(lab, onLun), lunUse.targetSees(lab, spec, onLun)] : []),
    databaseRows.writeRow(lab, spec),
    podNetwork.startClients(lab, spec),
    ...machinesWith(lab, 'worker').map(({ name }) => podNetwork.proveInside(lab, spec, name)),
  ]
}
