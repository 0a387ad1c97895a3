import { LabError } from '../error.js'
import { settleFences } from '../fencing/fence.js'
import type { LabId } from '../identity.js'
import { readJournal, refuseWhileFenced } from '../journal.js'
import { registry } from '../registry.js'
import type { Session } from '../session.js'
import { pathsOf } from '../state.js'
import { undoAll } from '../trial/undo.js'

/**
 * Called when everything was tried: a lab of which something is still broken on purpose is not up, although no check
 * may see what.
 * @throws LabError `not-undone`
 */
export const refuseUndone = async (lab: LabId): Promise<void> => {
  const left = await readJournal(lab)
  if (left.length === 0) return
  const what = new Set(left.map(({ fault, undo }) => `${fault} on ${undo.machine}`))
  throw new LabError('not-undone', `${lab.name}: not undone: ${[...what].join(', ')}`, {
    hint: `lab heal ${lab.name}, or lab down ${lab.name}`,
    log: pathsOf(lab).faults,
  })
}

/**
 * Undoes the faults that a killed run left, so that a command which changes the lab starts from a healthy one.
 * @returns whether there were any; in that case machines may still be booting
 */
export const healFirst = async (session: Session, notice: (text: string) => void): Promise<boolean> => {
  await settleFences(session.lab, session.signal)
  const open = await readJournal(session.lab)
  if (open.length === 0) return false
  const fenced = open.filter(({ kind }) => kind === 'fence')
  const byHand = open.filter(({ kind }) => kind === 'hand')
  const left = open.filter(({ kind }) => kind !== 'fence' && kind !== 'hand')
  for (const by of new Set(left.map((entry) => entry.by))) notice(`${by} was killed: undoing what it left`)
  for (const node of new Set(fenced.map(({ undo }) => undo.machine)))
    notice(`${node} was fenced: it comes back with a fresh boot`)
  for (const { by } of byHand) notice(`undoing what was done by hand: ${by}`)
  for (const problem of await undoAll(session, registry)) notice(`not undone: ${problem}`)
  await refuseWhileFenced(session.lab)
  return true
}
