/** Targets that serve nobody: shared by a stopped target and one that vanishes. */
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import type { AimedFault, Hit } from './fault.js'
import { ofAll, printed, reunion, type Sign, soon } from './sign.js'
import { onRunning, undoAct } from './undo-act.js'

/** Seconds for the command that disables targets. */
const timeout = 30

const disableTargets = shell`for tpg in /sys/kernel/config/target/iscsi/*/tpgt_1; do [ ! -e "$tpg/enable" ] || printf 0 > "$tpg/enable"; done`

/** A machine of a pair may serve nothing any more. */
export const enablingTargets = undoAct('enable-targets', {}, (context, { machine }) =>
  onRunning(
    context,
    machine,
    shell`for tpg in /sys/kernel/config/target/iscsi/*/tpgt_1; do [ ! -e "$tpg/enable" ] || [ "$(cat "$tpg/enable")" = 1 ] || printf 1 > "$tpg/enable"; done`,
  ),
)

/** Prints `1 iqn… 2`: whether the target is enabled, and the number of sessions. */
const portalGroups = shell`cd /sys/kernel/config/target/iscsi && for tpg in */tpgt_*; do [ -e "$tpg/enable" ] || continue; echo "$(cat "$tpg/enable") $tpg $(cat "$tpg"/acls/*/info 2>/dev/null | grep -c LOGGED_IN)"; done`

const groupsOf = async (
  context: Context,
  machine: string,
): Promise<readonly { readonly enabled: boolean; readonly name: string; readonly sessions: number }[]> =>
  (await printed(context, machine, portalGroups))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [enabled, name = '', sessions] = line.split(' ')
      return { enabled: enabled === '1', name, sessions: Number(sessions) }
    })

const servesNobody = (names: readonly string[]): Sign => ({
  title: `the targets of ${names.join(', ')} are disabled, and no initiator is logged in`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (machine) => {
      const groups = await groupsOf(context, machine)
      return {
        ok: groups.length > 0 && groups.every(({ enabled, sessions }) => !enabled && sessions === 0),
        saw: `${machine}: ${groups.map(({ name, enabled, sessions }) => `${name} ${enabled ? 'enabled' : 'disabled'}, ${String(sessions)} sessions`).join(', ') || 'no target'}`,
      }
    }),
})

const servesAgain = (names: readonly string[]): Sign => ({
  title: `the targets of ${names.join(', ')} are enabled`,
  within: reunion,
  probe: (context) =>
    ofAll(names, async (machine) => {
      const groups = await groupsOf(context, machine)
      return {
        ok: groups.length > 0 && groups.every(({ enabled }) => enabled),
        saw: `${machine}: ${groups.map(({ name, enabled }) => `${name} ${enabled ? 'enabled' : 'disabled'}`).join(', ') || 'no target'}`,
      }
    }),
})

/** A stopped target and one that vanishes: an initiator sees no difference. */
export const withoutTargets = ({ on, each, undo }: Hit<unknown>, detail: string): Omit<AimedFault, 'on'> => ({
  detail,
  undo: undo((machine) => enablingTargets.of(machine, {})),
  act: (context) => each(({ name }) => context.machine(name).run(disableTargets, { timeout })),
  acting: servesNobody(on),
  gone: servesAgain(on),
})
