/**
 * Gives a host back as it was found: every recorded change is undone, and the host is compared with its earlier state.
 */
import { exitCodes, LabError } from '../../error.js'
import type { Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'
import { type Holder, holderIn, lockFile } from './lock.js'
import { askManifest, manifestDifference, manifestFile } from './manifest.js'
import { hostFolder, readRecord, runAsRoot } from './undo-record.js'
import { undoRecord } from './undo.js'

/**
 * Undefined: the host is free.
 * @throws LabError `bad-lock` if it is not known who has it: such a host counts neither as free nor as given back
 */
export const readHolder = async (root: Transport): Promise<Holder | undefined> => {
  const said = await runAsRoot(root, `[ ! -e ${lockFile} ] || { echo there; cat ${lockFile}; }`, {
    what: 'reading the lock',
  })
  if (said.trim() === '') return undefined
  const holder = holderIn(said.slice(said.indexOf('\n') + 1))
  if (holder) return holder
  throw new LabError('bad-lock', `${root.address}: ${lockFile} does not say which lab uses it`, {
    hint: `if no lab uses it any more, type there: rm ${lockFile}`,
    exitCode: exitCodes.host,
  })
}

/**
 * Who has a host that a lab is about to give back. Without its lock, which somebody may have removed, it may still have
 * what was changed for the lab: it is free only if nothing is recorded either.
 */
export const holderToReturn = async (
  root: Transport,
  mine: Pick<Holder, 'key' | 'lab'>,
): Promise<Pick<Holder, 'key' | 'lab'> | undefined> =>
  (await readHolder(root)) ?? ((await readRecord(root)).length > 0 ? mine : undefined)

/** What root had for logins, before the lab's key came. */
export const keyNote = `${hostFolder}/ssh-before`

/** The line that gives a lab access as root; its end names the lab. */
export const keyLineOf = ({ key, lab }: Pick<Holder, 'key' | 'lab'>): string =>
  `ssh-ed25519 ${key} lab ${lab}`

/** @param holder the lab that uses it @returns the differences from before, one line each */
export const handBack = async (
  root: Transport,
  holder: Pick<Holder, 'key' | 'lab'>,
  progress: (note: string) => void,
): Promise<readonly string[]> => {
  await undoRecord(root, progress)
  progress('comparing with the state before')
  const before = await runAsRoot(root, `cat ${manifestFile} 2>/dev/null; true`, { what: 'reading the list' })
  // It is written before the key is installed; so without it, a host with the key has lost it.
  const lost =
    before.trim() === '' &&
    (await runAsRoot(root, `[ ! -e ${keyNote} ] || echo there`, { what: 'looking' })).trim() !== ''
  const now = await askManifest(root)
  const line = keyLineOf(holder)
  // The key is removed last, because it gives access. The state in which it was found decides what stays of the
  // folder.
  await runAsRoot(
    root,
    `set -e; cd /root; had=$(cat ${keyNote} 2>/dev/null || true)
if [ -e .ssh/authorized_keys ]; then
  grep -vxF ${quote(line)} .ssh/authorized_keys > .ssh/authorized_keys.lab-new || true
  cat .ssh/authorized_keys.lab-new > .ssh/authorized_keys; rm .ssh/authorized_keys.lab-new
  case "$had" in *file*) ;; *) [ -s .ssh/authorized_keys ] || rm .ssh/authorized_keys ;; esac
  case "$had" in *folder*) ;; *) rmdir .ssh 2>/dev/null || true ;; esac
fi
rm -rf --one-file-system ${hostFolder}; sync`,
    { what: 'removing the lab’s access' },
  )
  if (lost) return [`? ${manifestFile}, the list of the state before, is gone or empty: nothing was compared`]
  return before.trim() === ''
    ? []
    : manifestDifference(before, now).filter(
        (each) =>
          !each.startsWith('+ root-login ') || !(each.includes(line) || /^\+ root-login \d+ 0 /.test(each)),
      )
}
