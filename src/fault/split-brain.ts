import type { Context } from '../context.js'
import { LabError } from '../error.js'
import { lasting, where } from '../lab/fault-machines.js'
import { type PairedTarget, peerOf } from '../lab/lab.js'
import { mirrorDevice, resourceOf } from '../machine/pair.js'
import { type Command, shell } from '../machine/sh.js'
import { askEither } from '../steps/pair-members.js'
import { type Copy, copiesIn } from '../steps/pair-state.js'
import { faultOfMachine, lacksPair, pairOf } from './fault.js'
import { ofAll, printed, type Sign, soon } from './sign.js'
import { undoAct, undoTimeout } from './undo-act.js'

/** Seconds for a copy to catch up with what it has missed. */
const catchUp = 120

const timeout = undoTimeout

const copiesOf = async (context: Context, machine: string): Promise<readonly Copy[]> =>
  copiesIn(await printed(context, machine, shell`cat /proc/drbd`))

/** Nothing guards the copies any more: Pacemaker only looks on, and DRBD asks for no fence. */
const unguard = async (context: Context, target: PairedTarget): Promise<void> => {
  await askEither(
    context,
    target,
    shell`crm_attribute --quiet --type crm_config --name maintenance-mode --update true && crm_attribute --quiet --type crm_config --name stonith-enabled --update false`,
  )
  await Promise.all(
    target.pair.machines.flatMap((machine) =>
      [...target.luns.keys()].map((number) =>
        context
          .machine(machine)
          .run(shell`drbdsetup disk-options ${number} --fencing=dont-care`, { timeout }),
      ),
    ),
  )
}

/**
 * Writes to a copy while it is separated: its last 4 KiB, which are the same afterwards. DRBD does not know that, and
 * refuses to connect two copies that were both written to.
 */
const writeAlone = (target: PairedTarget): Command => {
  const name = resourceOf(target)
  const devices = [...target.luns.keys()].map(mirrorDevice).join(' ')
  return shell`drbdadm disconnect ${name} && drbdadm primary --force ${name} && for disk in $(echo ${devices}); do last=$(($(blockdev --getsz "$disk") / 8 - 1)); dd if="$disk" bs=4k skip=$last count=1 iflag=direct status=none | dd of="$disk" bs=4k seek=$last iflag=fullblock oflag=direct conv=fsync status=none || exit 1; done; drbdadm secondary ${name} && drbdadm connect ${name}`
}

/** What a person would do: the machine that did not serve discards what it wrote alone. */
const joining = undoAct('join-copies', {}, async (context, { machine }) => {
  const { signal } = context
  const target = pairOf(context, machine)
  const name = resourceOf(target)
  const on = (where: string, command: Command): Promise<string> =>
    context.machine(where).run(command, { signal, timeout })
  await on(
    machine,
    // DRBD has no connection to end any more once it has given it up.
    shell`state=$(drbdadm cstate ${name}); case $state in *StandAlone*|*WFConnection*) drbdadm secondary ${name} && case $state in *WFConnection*) drbdadm disconnect ${name} ;; esac && drbdadm connect --discard-my-data ${name} ;; esac`,
  )
  await on(
    peerOf(target, machine),
    shell`case $(drbdadm cstate ${name}) in *StandAlone*) drbdadm connect ${name} ;; esac`,
  )
  // This also gives DRBD back its policy of fencing.
  for (const each of target.pair.machines) await on(each, shell`drbdadm adjust ${name}`)
  await askEither(
    context,
    target,
    shell`crm_attribute --quiet --type crm_config --name stonith-enabled --update true && crm_attribute --quiet --type crm_config --name maintenance-mode --delete`,
  )
})

const everyCopy = (
  names: readonly string[],
  title: string,
  within: number,
  holds: (copy: Copy) => boolean,
): Sign => ({
  title,
  within,
  probe: (context) =>
    ofAll(
      names.flatMap((name) => pairOf(context, name).pair.machines),
      async (machine) => {
        const copies = await copiesOf(context, machine)
        return {
          ok: copies.length > 0 && copies.every(holds),
          saw: `${machine}: ${copies.map(({ text }) => text).join(', ') || 'no copy'}`,
        }
      },
    ),
})

const whole = ({ connection, disks }: Copy): boolean =>
  connection === 'Connected' && disks === 'UpToDate/UpToDate'

const fields = { machine: where(), for: lasting }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'split-brain': typeof fields
  }
}

export const splitBrain = faultOfMachine({
  name: 'split-brain',
  description:
    'Switches off everything that guards the two copies of a disk, fencing too, and writes to the copy that does not serve, so that the two have diverged and DRBD no longer connects them. Healed by discarding what that copy has written.',
  fields,
  sensible: [['target'], 'only a target has two copies of a disk'],
  rules: lacksPair,
  undos: [joining],
  aim: ({ on, names, each, undo }) => ({
    detail: `the copy on ${names} written to alone, without fencing (split brain)`,
    undo: undo((machine) => joining.of(machine, {})),
    possible: async (context) => {
      for (const name of on) {
        const copies = await copiesOf(context, name)
        if (copies.length > 0 && copies.every((copy) => whole(copy) && copy.roles === 'Secondary/Primary'))
          continue
        throw new LabError(
          'fault-impossible',
          `${name} is not the waiting one of two machines with the same disks: ${copies.map(({ text }) => text).join(', ') || 'no copy'}`,
          { hint: `lab verify ${context.lab.name}` },
        )
      }
    },
    act: (context) =>
      each(async ({ name }) => {
        const target = pairOf(context, name)
        await unguard(context, target)
        await context.machine(name).run(writeAlone(target), { timeout })
      }),
    acting: everyCopy(
      on,
      `split brain: the two copies have diverged, and DRBD has given up the connection`,
      soon,
      ({ connection }) => connection === 'StandAlone',
    ),
    gone: everyCopy(on, `both copies are connected and up to date`, catchUp, whole),
  }),
})
