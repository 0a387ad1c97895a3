/** The namespace of an experiment, with its undo in the journal. */
import { z } from 'zod'
import type { Context } from '../context.js'
import { undoAct } from '../fault/undo-act.js'
import type { Undo } from '../journal.js'
import { deleteNamespace, emptyNamespace, takeNamespace as take } from '../machine/owned-namespace.js'

/** Deletes a namespace with its content. The machine in the journal is that of the API server. */
export const deletingNamespace = undoAct(
  'delete-namespace',
  { namespace: z.string(), owner: z.string().optional() },
  ({ kubectl }, { namespace, owner }) => deleteNamespace(kubectl, namespace, owner),
)

/** Deletes what experiments made in a namespace that existed before. */
export const emptyingNamespace = undoAct(
  'empty-namespace',
  { namespace: z.string(), owner: z.string() },
  ({ kubectl }, { namespace, owner }) => emptyNamespace(kubectl, namespace, owner),
)

/**
 * Makes the namespace of an experiment, or uses one that was provided.
 * @param machine of the API server, for the journal; empty: it is not on one of the lab's machines
 * @throws LabError `namespace-taken` if it belongs to somebody else; then nothing was touched
 */
export const takeNamespace = async (
  { kubectl, lab }: Context,
  namespace: string,
  machine: string,
  undoLater: (undo: Undo) => Promise<void>,
): Promise<void> => {
  const { cluster } = lab
  if (!cluster) {
    await undoLater(deletingNamespace.of(machine, { namespace }))
    await kubectl.run(['create', 'namespace', namespace])
    return
  }
  const { owner } = cluster
  await take(kubectl, namespace, { owner, lab: lab.name }, (state) =>
    undoLater(
      state === 'absent'
        ? deletingNamespace.of('', { namespace, owner })
        : emptyingNamespace.of('', { namespace, owner }),
    ),
  )
}
