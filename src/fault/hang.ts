import { LabError, messageOf } from '../error.js'
import { shell } from '../machine/sh.js'
import { groupOf, lacks } from '../provider/provider.js'
import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { bootIdOf, described, stateOf } from './power.js'
import { comeback, ofAll, type Sign, soon } from './sign.js'
import { undoAct } from './undo-act.js'

const resuming = undoAct('resume', {}, async ({ lab, provider }, { machine }) => {
  await provider.pause?.end(lab, machine)
})

const isPaused = (names: readonly string[]): Sign => {
  // A machine that is fenced while it is paused is off a moment later.
  const seen = new Map<string, string>()
  return {
    title: `${names.join(', ')} is paused, as the provider reports it, and does not answer`,
    within: soon,
    probe: (context) =>
      ofAll(names, async (name) => {
        const state = await stateOf(context, name)
        if (state.paused === true) seen.set(name, described(state))
        const paused = seen.get(name)
        if (paused === undefined) return { ok: false, saw: described(state) }
        try {
          await context.machine(name).try(shell`true`, { signal: context.signal, timeout: 2 })
          return { ok: false, saw: `${paused}, but it answers` }
        } catch (error) {
          return { ok: true, saw: `${paused}; ${error instanceof LabError ? error.code : messageOf(error)}` }
        }
      }),
  }
}

const isAwake = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} runs again and answers`,
  within: comeback,
  probe: (context) =>
    ofAll(names, async (name) => {
      const state = await stateOf(context, name)
      if (state.status !== 'running' || state.paused === true) return { ok: false, saw: described(state) }
      return { ok: true, saw: `${name}: boot ${await bootIdOf(context, name)}` }
    }),
})

const fields = { machine: where(), for: lasting }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    hang: typeof fields
  }
}

export const hang = faultOfMachine({
  name: 'hang',
  description: 'Pauses a machine with its memory. Healed by resuming it.',
  fields,
  silences: () => true,
  refusal: (provider) => lacks(provider, 'pause'),
  undos: [resuming],
  aim: ({ context: { lab }, on, names, each, undo }) => ({
    detail: `${names} paused`,
    undo: undo((machine) => resuming.of(machine, {})),
    act: ({ provider }) => each(({ name }) => groupOf(provider, 'pause').begin(lab, name)),
    acting: isPaused(on),
    gone: isAwake(on),
  }),
})
