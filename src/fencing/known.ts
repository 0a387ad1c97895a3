/** What steps must know of fences: who is fenced, and how Kubernetes is told. */
import { readJournal } from '../journal.js'

export { outOfService } from '../journal.js'

/** The nodes that are fenced now, or about to be. */
export const fencedNodes = async (lab: string): Promise<readonly string[]> =>
  (await readJournal(lab)).filter(({ fault }) => fault === 'fence').map(({ undo }) => undo.machine)
