/**
 * Gives a host back as it was found: every recorded change is undone, and the host is compared with its earlier state.
 */
import type { Transport } from '../../machine/machine.js'
import { quote } from '../../machine/sh.js'
import { type Holder, holderIn, lockFile } from './lock.js'
import { askManifest, manifestDifference, manifestFile } from './manifest.js'
import { hostFolder, runAsRoot } from './undo-record.js'
import { undoRecord } from './undo.js'

/** Undefined: the host is free. */
export const readHolder = async (root: Transport): Promise<Holder | undefined> =>
  holderIn(await runAsRoot(root, `cat ${lockFile} 2>/dev/null; true`, { what: 'reading the lock' }))

/** The line that gives a lab access as root; its end names the lab. */
export const keyLineOf = ({ key, lab }: Pick<Holder, 'key' | 'lab'>): string =>
  `ssh-ed25519 ${key} lab ${lab}`

/** @param holder the lab that uses it @returns the differences from before, one line each */
export const handBack = async (
  root: Transport,
  holder: Holder,
  progress: (note: string) => void,
): Promise<readonly string[]> => {
  await undoRecord(root, progress)
  progress('comparing with the state before')
  const before = await runAsRoot(root, `cat ${manifestFile} 2>/dev/null; true`, { what: 'reading the list' })
  const now = await askManifest(root)
  const line = keyLineOf(holder)
  // The key is removed last, because it gives access. The state in which it was found decides what stays of the
  // folder.
  await runAsRoot(
    root,
    `set -e; cd /root; had=$(cat ${hostFolder}/ssh-before 2>/dev/null || true)
if [ -e .ssh/authorized_keys ]; then
  grep -vxF ${quote(line)} .ssh/authorized_keys > .ssh/authorized_keys.lab-new || true
  cat .ssh/authorized_keys.lab-new > .ssh/authorized_keys; rm .ssh/authorized_keys.lab-new
  case "$had" in *file*) ;; *) [ -s .ssh/authorized_keys ] || rm .ssh/authorized_keys ;; esac
  case "$had" in *folder*) ;; *) rmdir .ssh 2>/dev/null || true ;; esac
fi
rm -rf --one-file-system ${hostFolder}; sync`,
    { what: 'removing the lab’s access' },
  )
  return before === ''
    ? []
    : manifestDifference(before, now).filter(
        (each) =>
          !each.startsWith('+ root-login ') || !(each.includes(line) || /^\+ root-login \d+ 0 /.test(each)),
      )
}
