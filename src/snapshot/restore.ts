/** Restores the disks of a lab from a snapshot. */
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { LabId } from '../identity.js'
import { readJournal, strike } from '../journal.js'
import { groupOf, type Provider } from '../provider/provider.js'
import { pathsOf, syncFolder } from '../state.js'
import {
  copyEntries,
  folderOf,
  markOf,
  noSuchSnapshot,
  ownEntries,
  readSnapshot,
  refuseFull,
  refuseName,
  refuseWithoutDisks,
  type Snapshot,
} from './snapshot.js'

/**
 * Restores a lab that is off from a snapshot. Open entries of the journal are dropped, because their effects are gone
 * with the disks and the memory. The caller holds the lab's lock, and brings the lab up afterwards.
 */
export const putBack = async (lab: LabId, provider: Provider, name: string): Promise<Snapshot> => {
  refuseName(name)
  const group = groupOf(provider, 'snapshots')
  const snapshot = await readSnapshot(lab, name)
  if (!snapshot) throw await noSuchSnapshot(lab, name)
  const { root } = pathsOf(lab)
  const from = join(folderOf(lab), name)
  const next = join(folderOf(lab), '.restoring')
  await refuseWithoutDisks(lab, snapshot)
  await refuseFull(lab, snapshot.bytes)
  await rm(next, { recursive: true, force: true })
  try {
    await mkdir(next, { recursive: true, mode: 0o700 })
    await copyEntries(from, next)
    await writeFile(markOf(lab), `${name}\n`, { mode: 0o600 })
    await syncFolder(root)
    await group.load(lab, pathsOf(lab).snapshotDisks(name))
    for (const entry of ownEntries) {
      await rm(join(root, entry), { recursive: true, force: true })
      if (await stat(join(next, entry)).catch(() => undefined))
        await rename(join(next, entry), join(root, entry))
    }
    for (const entry of await readJournal(lab)) await strike(lab, entry)
    await rm(markOf(lab), { force: true })
    await syncFolder(root)
  } finally {
    await rm(next, { recursive: true, force: true })
  }
  return snapshot
}
