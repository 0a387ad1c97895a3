/** The table of contents: every command that changes or checks a whole lab uses one of these plans. */
import type { LabId } from './identity.js'
import type { Plan, Step } from './context.js'
import type { Lab, Role } from './lab/lab.js'
import type { FileOptions } from './machine/machine-file.js'
import { backwards, inTurn, planOf } from './plan/plan.js'
import type { Plan as AnyPlan, Surroundings } from './plan/step.js'
import type { Leftover, Provider } from './provider/provider.js'
import { endAgent, watchWorkers } from './steps/fencing.js'
import { existingClusterSteps } from './steps/existing-cluster.js'
import { destroy, fileOptions } from './steps/machines.js'
import * as steps from './steps/subjects.js'

/**
 * `up` and `start` apply it; `verify` and `plan` only check.
 * @param gone machines that exist but are no longer in the lab file
 */
export const planUp = (
  lab: Lab,
  provider: Provider,
  options: FileOptions,
  gone: readonly string[] = [],
): Plan =>
  planOf(
    `Bring up ${lab.name}`,
    lab.cluster
      ? existingClusterSteps(lab)
      : [
          ...steps.machineSteps(lab, provider, options, gone),
          ...steps.iscsiSteps(lab, provider),
          ...steps.kubernetesSteps(lab, provider),
          ...steps.storageSteps(lab, provider),
          ...steps.workloadSteps(lab),
          ...steps.databaseSteps(lab),
        ],
  )

/** `planUp` for the machines that exist at this moment. */
export const planNow = async (lab: Lab, provider: Provider): Promise<Plan> => {
  const gone = (await provider.states(lab))
    .map(({ name }) => name)
    .filter((name) => !lab.machines.some((machine) => machine.name === name))
  return planUp(lab, provider, await fileOptions(lab, provider), gone)
}

/**
 * `stop`: undoes running machines in reverse order and keeps all disks. Targets go off last, since they serve the
 * disks of others.
 */
export const planStop = (lab: Lab, provider: Provider, options: FileOptions): Plan => {
  const of = (...roles: readonly Role[]): readonly Step[] =>
    lab.machines
      .filter(({ role }) => roles.includes(role))
      .map((machine) => steps.booted(lab, provider, machine, options))
  return backwards(
    planOf(
      `Stop ${lab.name}`,
      inTurn(
        [steps.networked(lab, provider)],
        of('target'),
        of('control-plane', 'nfs'),
        of('worker', 'initiator'),
        [watchWorkers(lab)],
      ),
    ),
  )
}

/**
 * For restoring a snapshot: all machines lose their power at once, including those that are no longer in the lab file.
 * An orderly shutdown would take time, and what the machines would write is not needed.
 */
export const planCut = (lab: Lab, provider: Provider, names: readonly string[]): Plan =>
  planOf(
    `Switch ${lab.name} off at once`,
    inTurn(
      [endAgent(lab)],
      names.map((name) => steps.cut(lab, provider, name)),
      backwards(planOf('', [steps.networked(lab, provider)])).steps,
    ),
  )

/**
 * `down`: needs only the name and no lab file, because it ends a lab whatever state its files are in.
 * @param looked called with what is left, each time that a provider is asked: before its end, and after it
 */
export const planDown = (
  lab: LabId,
  providers: readonly Provider[],
  looked?: (provider: Provider, left: readonly Leftover[]) => void,
): AnyPlan<Surroundings> =>
  planOf(
    `End ${lab.name}`,
    inTurn(
      [endAgent(lab)],
      ...providers.map((provider) => [destroy(lab, provider, (left) => looked?.(provider, left))]),
    ),
  )

/** `down` for machines that lab did not create: undoes what `up` changed on them, then forgets the lab. */
export const planGiveBack = (lab: Lab, provider: Provider, options: FileOptions): Plan => ({
  ...backwards(planUp(lab, provider, options)),
  title: `Give back the machines of ${lab.name}`,
})
