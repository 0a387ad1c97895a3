/** The table of contents: every command that changes or checks a whole lab uses one of these plans. */
import type { LabId } from './identity.js'
import type { Plan } from './context.js'
import type { Lab } from './lab/lab.js'
import type { FileOptions } from './machine/machine-file.js'
import { among, backwards, inTurn, planOf } from './plan/plan.js'
import type { Plan as AnyPlan, Surroundings } from './plan/step.js'
import type { Leftover, Provider } from './provider/provider.js'
import { endAgent } from './steps/fencing.js'
import { existingClusterSteps, homeSteps } from './steps/existing-cluster.js'
import { destroy, fileOptions, goneFrom } from './steps/machines.js'
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
      ? among([...existingClusterSteps(lab), ...homeSteps(lab), ...steps.databaseSteps(lab)])
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
export const planNow = async (lab: Lab, provider: Provider): Promise<Plan> =>
  planUp(lab, provider, await fileOptions(lab, provider), await goneFrom(lab, provider))

/** `stop`: switches the machines off in reverse order and keeps all disks. */
export const planStop = (lab: Lab, provider: Provider, options: FileOptions): Plan =>
  backwards(planOf(`Stop ${lab.name}`, steps.runningSteps(lab, provider, options)))

/** Before a snapshot is put back: cuts the power of all machines, also of those that are no longer in the lab file. */
export const planCut = (lab: Lab, provider: Provider, names: readonly string[]): Plan =>
  planOf(`Switch ${lab.name} off at once`, steps.cutSteps(lab, provider, names))

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
