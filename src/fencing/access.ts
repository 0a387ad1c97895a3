/**
 * Which initiators a target admits: the target's side of a fence by storage and of its undo.
 *
 * A fence is a file on the target's disk that is named after the initiator and contains the fence's id. The script
 * that serves the targets (templates/machine/target.sh.hbs) gives such an initiator no access list, at boot or later.
 * The undo records the id, so that a request for this fence that arrives after its undo is refused. All three hold
 * one lock while they act.
 */
import { type Lab, machineNamed, serversOf } from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import type { Context } from '../context.js'

/** These names are repeated in templates/machine/target.sh.hbs. */
const lock = '/run/lab-target.lock'
/** A folder on a target machine: a file named after an initiator says that it is fenced. */
export const fencedFolder = '/var/lib/lab/fenced'
/** The ids of the last hundred fences that were undone. */
const undone = '/var/lib/lab/unfenced'

/** Seconds in which a target must end a session with all its outstanding commands. */
export const dropDeadline = 20

/** Seconds to wait for another process that changes the targets. */
const lockDeadline = 15

/** The exit code of a target for a fence that was undone before it arrived. */
const undoneBefore = 4

/** The machines whose targets a node uses; none if it is not an initiator. */
export const targetMachinesOf = (lab: Lab, node: string): readonly string[] =>
  machineNamed(lab, node).iqn === undefined ? [] : [...new Set(lab.targets.flatMap(serversOf))]

/** The command that ends an initiator's access at one target machine, for the fence with this id. Idempotent. */
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
 * Ends the sessions of a node at all targets and denies it access until `letIn`, even across reboots of the targets.
 * @param id of the fence
 * @returns false if this fence was already undone
 * @throws if a target machine did not confirm it
 */
export const throwOut = async (
  context: Context,
  node: string,
  id: string,
  signal: AbortSignal,
): Promise<boolean> => {
  const { iqn: initiator } = machineNamed(context.lab, node)
  if (initiator === undefined) throw new Error(`${node} is not an initiator, so no target could shut it out`)
  const command = throwOutCommand(initiator, id)
  const answers = await Promise.all(
    targetMachinesOf(context.lab, node).map(async (machine) => {
      const result = await context.machine(machine).try(command, { signal, timeout: dropDeadline })
      if (result.exitCode !== 0 && result.exitCode !== undoneBefore)
        throw new Error(
          `${machine} did not shut ${node} out: ${result.stderr.trim() || `exit code ${String(result.exitCode)}`}`,
        )
      return result.exitCode
    }),
  )
  return !answers.includes(undoneBefore)
}

/** Admits a node again at one target machine, and refuses the fence with this id from now on. Idempotent. */
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

/** Prints the initiators that a target machine denies. */
export const keptOut = shell`ls ${fencedFolder} 2>/dev/null || true`

/** Forgets the fence of an initiator without recording an id, for a fence that is in no journal. */
export const forget = (initiator: string): Command =>
  shell`exec 9>${lock}; flock -w ${lockDeadline} 9; rm -f ${`${fencedFolder}/${initiator}`}; sync ${fencedFolder}`
