/** The namespaces of experiments. */
import type { Lab } from '../lab/lab.js'
import type { Experiment } from './experiment-context.js'

/** The namespace in which an experiment works. */
export const namespaceOf = (lab: Lab, { name, workload }: Pick<Experiment, 'name' | 'workload'>): string =>
  workload ? (lab.cluster ? `lab-${lab.name}` : 'default') : `lab-${name}`
