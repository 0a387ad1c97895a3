/**
 * Who a target lets in: the target's half of a fence by storage, and of its undo.
 *
 * That a node is fenced is a file on the target's disk, named like the initiator and holding the id of the fence. The
 * script that serves the targets (templates/machine/target.sh.hbs) gives such an initiator no access list, at boot or
 * later. An undo leaves the id behind, so that a fence that was asked for before, and arrives after it, is refused.
 * All three hold one lock while they act.
 */
import { type Lab, machineNamed } from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import type { Context } from '../context.js'

/** The same names stand in templates/machine/target.sh.hbs. */
const lock = '/run/lab-target.lock'
/** A folder on a target machine: a file of an initiator's name says that it is fenced. */
export const fencedFolder = '/var/lib/lab/fenced'
/** Ids of fences that were undone; the last hundred are kept. */
const undone = '/var/lib/lab/unfenced'

/** Seconds for a target to end a session, with all that is under way in it. */
export const dropDeadline = 20

/** Seconds for whoever else changes the targets to be done. */
const lockDeadline = 15

/** What the target says to a fence that was undone before it came. */
const undoneBefore = 4

/** The machines whose targets a node uses; none where it is no initiator. */
export const targetMachinesOf = (lab: Lab, node: string): readonly string[] =>
  machineNamed(lab, node).iqn === undefined ? [] : [...new Set(lab.targets.map(({ machine }) => machine))]

/** What throws an initiator out at one target machine, by the fence with this id. Idempotent. */
export const throwOutCommand = (initiator: string, id: string): Command =>
  shell`set -e
exec 9>${lock}; flock -w ${lockDeadline} 9
mkdir -p ${fencedFolder} ${undone}
[ ! -e ${`${undone}/${id}`} ] || exit ${undoneBefore}
printf %s ${id} > ${`${fencedFolder}/.new`}; sync ${`${fencedFolder}/.new`}; mv ${`${fencedFolder}/.new`} ${`${fencedFolder}/${initiator}`}; sync ${fencedFolder}
for acl in /sys/kernel/config/target/iscsi/*/tpgt_*/acls/${initiator}; do
  [ -d "$acl" ] || continue
  for map in "$acl"/lun_*; do [ ! -d "$map" ] || { rm -f "$map"/lun; rmdir "$map"; }; done
  rmdir "$acl"
done
for acl in /sys/kernel/config/target/iscsi/*/tpgt_*/acls/${initiator}; do [ ! -d "$acl" ]; done`

/**
 * Ends the sessions of a node at all targets, and keeps it out until `letIn`, whatever the target machines go
 * through. @param id of the fence @returns false: this fence was undone already
 * @throws where a target machine did not confirm it
 */
export const throwOut = async (
  context: Context,
  node: string,
  id: string,
  signal: AbortSignal,
): Promise<boolean> => {
  const { iqn: initiator } = machineNamed(context.lab, node)
  if (initiator === undefined) throw new Error(`${node} is no initiator: no target could keep it out`)
  const command = throwOutCommand(initiator, id)
  const answers = await Promise.all(
    targetMachinesOf(context.lab, node).map(async (machine) => {
      const result = await context.machine(machine).try(command, { signal, timeout: dropDeadline })
      if (result.exitCode !== 0 && result.exitCode !== undoneBefore)
        throw new Error(
          `${machine} did not throw ${node} out: ${result.stderr.trim() || `exit code ${String(result.exitCode)}`}`,
        )
      return result.exitCode
    }),
  )
  return !answers.includes(undoneBefore)
}

/** Lets a node in again at one target machine, and refuses the fence with this id from now on. Idempotent. */
export const letIn = (initiator: string, id: string): Command =>
  shell`set -e
exec 9>${lock}; flock -w ${lockDeadline} 9
mkdir -p ${fencedFolder} ${undone}
: > ${`${undone}/${id}`}
[ "$(cat ${`${fencedFolder}/${initiator}`} 2>/dev/null)" != ${id} ] || rm ${`${fencedFolder}/${initiator}`}
sync ${`${undone}/${id}`} ${undone} ${fencedFolder}
ls -t ${undone} | tail -n +101 | while read -r old; do rm -f ${undone}/"$old"; done
exec 9>&-
/etc/lab/boot.d/50-target`

/** The initiators that a target machine keeps out. */
export const keptOut = shell`ls ${fencedFolder} 2>/dev/null || true`

/** Forgets that an initiator is fenced; no id is left behind. For a fence that nobody has noted. */
export const forget = (initiator: string): Command =>
  shell`exec 9>${lock}; flock -w ${lockDeadline} 9; rm -f ${`${fencedFolder}/${initiator}`}; sync ${fencedFolder}`
