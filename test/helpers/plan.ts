import type { Plan, Step } from '../../src/context.js'

/** The plan of a lab with one step. */
export const planWith = (step: Pick<Step, 'checks'> & Partial<Step>): Plan => ({
  title: 'the lab',
  steps: [{ id: 'well', title: 'See that it is well', phase: 'x', needs: [], ...step }],
})
