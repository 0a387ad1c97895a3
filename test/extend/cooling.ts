/** An experiment that this program does not have, as a file of src/course would be. */
import type { Experiment } from '../../src/trial/experiment-context.js'
import { still } from './fan-failure.js'

export const cooling: Experiment = {
  name: 'cooling',
  description: 'A worker stays cool while its fan stands still',
  workers: 1,
  run: async (context) => {
    await context.fault({ fault: 'fan-failure', machine: 'worker1', fan: 2 })
    context.claim('the worker is cool', { ok: still.has('worker1'), saw: '40 °C' })
  },
}
