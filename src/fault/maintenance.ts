import type { Context } from '../context.js'
import { lasting, where } from '../lab/fault-machines.js'
import { peerOf } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import { askEither, clusterState } from '../steps/pair-members.js'
import { faultOfMachine, lacksPair, pairOf } from './fault.js'
import { ofAll, type Sign } from './sign.js'
import { undoAct, undoTimeout } from './undo-act.js'

/** Seconds for everything to move away from a machine, or for its copy to be there again. */
const move = 90

/** The other machine is told: Pacemaker has one configuration, and this machine may be off. */
const returning = undoAct('end-maintenance', {}, async (context, { machine }) => {
  await askEither(
    context,
    pairOf(context, machine),
    shell`crm_attribute --quiet --type nodes --node ${machine} --name standby --delete`,
  )
})

/** What Pacemaker runs on a machine, except that it monitors the power switch of the other one. */
const runningOn = async (
  context: Context,
  machine: string,
): Promise<{ readonly standby: boolean; readonly runs: readonly string[]; readonly saw: string }> => {
  const { nodes, resources } = await clusterState(context, pairOf(context, machine))
  const standby = nodes.some(({ name, standby: aside }) => name === machine && aside)
  const runs = resources.flatMap(({ id, role, on }) =>
    on.includes(machine) ? [`${id} ${role.toLowerCase()}`] : [],
  )
  return {
    standby,
    runs,
    saw: `${machine}: ${standby ? 'standby' : 'not standby'}, ${runs.join(', ') || 'runs nothing'}`,
  }
}

const isAside = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} is standby, and Pacemaker runs nothing there`,
  within: move,
  probe: (context) =>
    ofAll(names, async (name) => {
      const { standby, runs, saw } = await runningOn(context, name)
      return { ok: standby && runs.length === 0, saw }
    }),
})

const isBack = (names: readonly string[]): Sign => ({
  title: `${names.join(', ')} takes part again, and has its copy of the disk`,
  within: move,
  probe: (context) =>
    ofAll(names, async (name) => {
      const { standby, runs, saw } = await runningOn(context, name)
      return { ok: !standby && runs.some((each) => each.startsWith('disk ')), saw }
    }),
})

const fields = { machine: where(), for: lasting }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    maintenance: typeof fields
  }
}

export const maintenance = faultOfMachine({
  name: 'maintenance',
  description:
    'Takes one of the two machines of a target out of service in an orderly way, as `pcs node standby` does: what runs there moves to the other one. Healed by taking it back.',
  fields,
  sensible: [['target'], 'only the two machines of a target replace each other'],
  rules: lacksPair,
  undos: [returning],
  aim: ({ on, names, each, undo }) => ({
    detail: `${names} taken out of service for maintenance`,
    undo: undo((machine) => returning.of(machine, {})),
    act: (context) =>
      each(({ name }) =>
        context
          .machine(peerOf(pairOf(context, name), name))
          .run(shell`crm_attribute --quiet --type nodes --node ${name} --name standby --update on`, {
            timeout: undoTimeout,
          }),
      ),
    acting: isAside(on),
    gone: isBack(on),
  }),
})
