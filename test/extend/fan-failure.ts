/** A fault that this program does not have, as a file of src/fault would be. */
import { z } from 'zod'
import { faultOfMachine } from '../../src/fault/fault.js'
import { undoAct } from '../../src/fault/undo-act.js'
import { lasting, where } from '../../src/lab/fault-machines.js'

/** The machines whose fan is stopped in this world. */
export const still = new Set<string>()

export const startingFan = undoAct('start-fan', { fan: z.int() }, (_context, { machine }) => {
  still.delete(machine)
  return Promise.resolve()
})

const fields = {
  machine: where(),
  fan: z.int({ error: 'the number of a fan' }).meta({ description: 'Which fan.' }),
  for: lasting,
}

declare module '../../src/lab/fault-spec.js' {
  interface FaultFields {
    'fan-failure': typeof fields
  }
}

export const fanFailure = faultOfMachine({
  name: 'fan-failure',
  description: 'Stops a fan of a machine. Healed by starting it.',
  fields,
  sensible: [['worker'], 'only workers have fans'],
  undos: [startingFan],
  aim: ({ on, names, spec, undo, each }) => ({
    detail: `fan ${String(spec.fan)} of ${names} stopped`,
    undo: undo((machine) => startingFan.of(machine, { fan: spec.fan })),
    act: () => each(({ name }) => Promise.resolve(still.add(name))),
    acting: {
      title: `the fan of ${names} stands still`,
      within: 1,
      probe: () => Promise.resolve({ ok: on.every((name) => still.has(name)), saw: [...still].join() }),
    },
    gone: {
      title: `the fan of ${names} turns`,
      within: 1,
      probe: () => Promise.resolve({ ok: on.every((name) => !still.has(name)), saw: [...still].join() }),
    },
  }),
})
