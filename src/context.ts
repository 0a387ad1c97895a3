/** What the steps of a lab work with. A step, a check or a plan of this file is one that gets such a context. */
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
