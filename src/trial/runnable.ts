/** What can be run by name in a lab: its scenarios, and the experiments that its file names. */
import { exitCodes, LabError } from '../error.js'
import { imagesOf } from '../lab/images.js'
import type { Lab, ScenarioSpec } from '../lab/lab.js'
import { didYouMean } from '../lab/suggest.js'
import type { Experiment } from './experiment-context.js'
import type { Registry } from './registry.js'

/** A scenario of the lab file or an experiment that it names. */
export type Runnable =
  | { readonly name: string; readonly description: string; readonly scenario: ScenarioSpec }
  | { readonly name: string; readonly description: string; readonly experiment: Experiment }

const runnables = (lab: Lab, { experiments }: Registry): readonly Runnable[] => [
  ...lab.scenarios.map((scenario) => ({ name: scenario.name, description: scenario.description, scenario })),
  ...lab.experiments.flatMap(({ name }) =>
    experiments
      .filter((experiment) => experiment.name === name)
      .map((experiment) => ({ name, description: experiment.description, experiment })),
  ),
]

/** The end of the name of a series of scenarios, which are run one after another. */
const seriesEnd = '-any'

/** @throws LabError for names that the lab does not have */
export const chosen = (
  lab: Lab,
  registry: Registry,
  names: readonly string[],
  all: boolean,
): readonly Runnable[] => {
  const there = runnables(lab, registry)
  const known = there.map(({ name }) => name)
  const listed = there.map(({ name, description }) => `  ${name.padEnd(20)}  ${description}`).join('\n')
  if (known.length === 0)
    throw new LabError('no-scenarios', `${lab.name} has no scenarios and no experiments`, {
      hint: `add scenarios or experiments to ${lab.file}; lab schema says how`,
      exitCode: exitCodes.usage,
    })
  if (all) {
    if (names.length > 0)
      throw new LabError('bad-scenarios', '--all and names of scenarios exclude each other', {
        exitCode: exitCodes.usage,
      })
    return there
  }
  if (names.length === 0)
    throw new LabError('bad-scenarios', `which scenario of ${lab.name}?\n${listed}`, {
      hint: `lab run ${lab.name} ${known[0] ?? ''}, or --all`,
      exitCode: exitCodes.usage,
    })
  return names.flatMap((name) => {
    const found = there.filter((candidate) => candidate.name === name)
    // `power-cut-any` is a series: every scenario whose name begins with it.
    if (found.length === 0 && name.endsWith(seriesEnd))
      found.push(...there.filter((candidate) => candidate.name.startsWith(`${name}-`)))
    if (found.length === 0)
      throw new LabError(
        'no-scenario',
        `${lab.name} has no scenario ${name}${didYouMean(name, known)}\n${listed}`,
        { hint: `lab run ${lab.name} ${known[0] ?? ''}`, exitCode: exitCodes.usage },
      )
    return found
  })
}

/**
 * The running lab with the experiments and manifests of another one.
 * @throws LabError if its machines lack something that the experiments need
 */
export const borrowed = (course: Lab, machines: Lab): Lab => {
  const refuse = (what: string): never => {
    throw new LabError('not-on', `${course.name} cannot run on ${machines.name}: ${what}`, {
      hint: `lab up ${course.name}`,
      exitCode: exitCodes.usage,
    })
  }
  if (!machines.kubernetes) refuse('it has no Kubernetes')
  if (course.workloads.length > 0 || course.database) refuse('its experiments are about what lab up deploys')
  const there = imagesOf(machines)
  const images = imagesOf(course).filter((image) => !there.includes(image))
  if (images.length > 0) refuse(`its nodes have no ${images.join(', ')}`)
  const classes = course.storage.filter(
    (wanted) =>
      !machines.storage.some(
        (given) =>
          given.class === wanted.class && given.kind === wanted.kind && given.default === wanted.default,
      ),
  )
  if (classes.length > 0)
    refuse(`it has no such storage class as ${classes.map((storage) => storage.class).join(', ')}`)
  return { ...machines, manifests: course.manifests, experiments: course.experiments, scenarios: [] }
}
