import { skew } from '../lab/fields.js'
import { shell } from '../machine/sh.js'
import { measureClocks } from './clock.js'
import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { ofAll, type Sign, soon } from './sign.js'
import { onRunning, undoAct } from './undo-act.js'

/** Seconds for the command that sets a clock. */
const timeout = 30

const settingClock = undoAct('set-clock', {}, (context, { machine }) =>
  onRunning(context, machine, shell`date -s ${`@${(Date.now() / 1000).toFixed(3)}`}`),
)

/** Tolerated difference of a clock from its target, in milliseconds. */
const clockTolerance = 1500

/** @param by milliseconds ahead of this host's clock; 0 means in step */
const isAhead = (names: readonly string[], by: number): Sign => ({
  title:
    by === 0
      ? `the clock of ${names.join(', ')} agrees with this host's`
      : `the clock of ${names.join(', ')} is ${String(by / 1000)} s ahead`,
  within: soon,
  probe: async (context) => {
    const clocks = await measureClocks(context, names)
    const tolerance = by === 0 ? clockTolerance : Math.min(clockTolerance, Math.abs(by) / 2)
    return ofAll(names, (name) => {
      const clock = clocks[name]
      return Promise.resolve({
        ok: clock !== undefined && Math.abs(clock.ms - by) <= tolerance + clock.uncertainty,
        saw: `${name}: ${clock ? `${(clock.ms / 1000).toFixed(3)} s ahead` : 'unknown'}`,
      })
    })
  },
})

const fields = {
  machine: where(),
  by: skew('By how much: `+5min` sets it ahead, `-5min` back.'),
  for: lasting,
}

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'clock-skew': typeof fields
  }
}

export const clockSkew = faultOfMachine({
  name: 'clock-skew',
  description: 'Sets the clock of a machine wrong. Healed by correcting it.',
  fields,
  undos: [settingClock],
  // Once the heal has set it back, a clock shows no trace of the fault.
  setsClocks: true,
  aim: ({ spec: { by }, on, names, each, undo }) => ({
    detail: `clock of ${names} set ${by > 0 ? '+' : ''}${String(by / 1000)} s`,
    undo: undo((machine) => settingClock.of(machine, {})),
    act: (context) =>
      each(({ name }) =>
        context.machine(name).run(shell`date -s ${`@${((Date.now() + by) / 1000).toFixed(3)}`}`, { timeout }),
      ),
    acting: isAhead(on, by),
    gone: isAhead(on, 0),
  }),
})
