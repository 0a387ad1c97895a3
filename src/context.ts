/** What the steps of a lab work with. The steps, checks and plans of a lab are those of `plan/` with this context. */
import type { Lab } from './lab/lab.js'
import type { Kubectl } from './machine/kubectl.js'
import type { Machine } from './machine/machine.js'
import type * as plan from './plan/step.js'
import type { Provider } from './provider/provider.js'

export interface Context extends plan.Surroundings {
  readonly lab: Lab
  readonly provider: Provider
  readonly kubectl: Kubectl
  machine(name: string): Machine
}

export type Check = plan.Check<Context>
export type Step = plan.Step<Context>
export type Plan = plan.Plan<Context>
