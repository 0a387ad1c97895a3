/** The product's table of contents: what a lab is, as steps. */
import { initiatorsOf, type Lab, machinesWith, nfsServerOf, nodesOf, targetNamed } from './lab/lab.js'
import { numbering } from './lab/names.js'
import type { FileOptions } from './machine/files.js'
import * as database from './steps/database.js'
import * as fencing from './steps/fencing.js'
import * as initiator from './steps/initiator.js'
import * as kubernetes from './steps/kubernetes.js'
import * as machines from './steps/machines.js'
import * as storage from './steps/storage.js'
import * as target from './steps/target.js'
import * as workloads from './steps/workloads.js'
import type { Check, Plan, Step } from './context.js'

const machineSteps = (lab: Lab, options: FileOptions, gone: readonly string[]): readonly Step[] => [
  machines.createNetwork(lab),
  ...gone.map((name) => machines.remove(lab, name)),
  ...lab.machines.flatMap((machine) => [
    machines.boot(lab, machine, options),
    machines.reach(lab, machine),
    machines.configure(lab, machine, options, gone),
  ]),
]

const iscsiSteps = (lab: Lab): readonly Step[] => [
  ...lab.targets.map((each) => target.serveTarget(lab, each)),
  ...initiatorsOf(lab).map((machine) => initiator.prepareInitiator(lab, machine)),
  ...lab.targets.map((each) => target.proveRefusal(lab, each)).filter((step) => step !== undefined),
  ...lab.filesystems.flatMap((filesystem) => [
    initiator.logIn(lab, filesystem),
    initiator.makeFilesystem(lab, filesystem),
    initiator.growFilesystem(lab, filesystem),
  ]),
]

const kubernetesSteps = (lab: Lab): readonly Step[] => {
  const spec = lab.kubernetes
  if (!spec) return []
  return [
    ...nodesOf(lab).map((machine) => kubernetes.startContainerd(lab, machine)),
    kubernetes.initControlPlane(lab),
    kubernetes.forgetNodes(lab),
    ...machinesWith(lab, 'worker').map((machine) => kubernetes.joinWorker(lab, machine)),
    ...nodesOf(lab).map((machine) => kubernetes.routePods(lab, machine)),
    ...nodesOf(lab).map((machine) => kubernetes.readyNode(lab, machine, spec)),
    kubernetes.installDns(lab),
    kubernetes.proveControlPlane(lab),
    kubernetes.proveProxy(lab),
    ...(machinesWith(lab, 'worker').some(({ iqn }) => iqn !== undefined) ? [database.guardLuns(lab)] : []),
    fencing.watchWorkers(lab),
  ]
}

const storageSteps = (lab: Lab): readonly Step[] => {
  const server = nfsServerOf(lab)
  return [
    ...(server ? [storage.serveNfs(lab, server)] : []),
    ...(server ? nodesOf(lab).map((machine) => storage.mountNfs(lab, machine)) : []),
    ...nodesOf(lab).map((machine) => storage.loadImages(lab, machine)),
    ...(lab.storage.length > 0 ? [storage.provideStorage(lab)] : []),
  ]
}

const workloadSteps = (lab: Lab): readonly Step[] => {
  let before: string | undefined
  return lab.workloads.map((workload) => {
    const step = workloads.deployWorkload(lab, workload, before)
    before = step.id
    return step
  })
}

const databaseSteps = (lab: Lab): readonly Step[] => {
  const spec = lab.database
  if (!spec) return []
  const { volume } = spec
  const onLun = volume.kind === 'lun' ? volume : undefined
  return [
    ...(onLun
      ? [database.createSecret(lab, targetNamed(lab, onLun.target)), database.proveVolume(lab, spec, onLun)]
      : []),
    database.deployDatabase(lab, spec),
    ...(onLun ? [initiator.growVolume(lab, onLun), database.targetSees(lab, spec, onLun)] : []),
    database.writeRow(lab, spec),
    database.startClients(lab, spec),
    ...machinesWith(lab, 'worker').map(({ name }) => database.proveInside(lab, spec, name)),
  ]
}

/** Names in a lab file are free, so ids made of them may come out alike: a machine `api` is ready, and so is the API. */
const withDistinctChecks = (steps: readonly Step[]): readonly Step[] => {
  const distinct = numbering()
  const named = (check: Check): Check => ({ ...check, id: distinct(check.id) })
  return steps.map((step) => {
    const [first, ...others] = step.checks
    return { ...step, checks: [named(first), ...others.map(named)] }
  })
}

/** @param gone machines that exist but are no longer in the lab file */
export const planUp = (lab: Lab, options: FileOptions, gone: readonly string[] = []): Plan => ({
  title: `Bring up ${lab.name}`,
  steps: withDistinctChecks([
    ...machineSteps(lab, options, gone),
    ...iscsiSteps(lab),
    ...kubernetesSteps(lab),
    ...storageSteps(lab),
    ...workloadSteps(lab),
    ...databaseSteps(lab),
  ]),
})
