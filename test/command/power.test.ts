/** What the fencing agent is told while `lab power` works. */
import { expect, it, vi } from 'vitest'
import { withLab } from '../../src/command-line/with-lab.js'
import type { Io } from '../../src/command-line/verb.js'
import { lockPurposeOf } from '../../src/command/power.js'
import { holderOf } from '../../src/lock.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

it.each([
  ['off', 'run'],
  ['on', 'change'],
  ['cycle', 'change'],
] as const)(
  'lab power %s holds the lab for the purpose %s, so only a machine that stays off is fenced',
  async (action, wanted) => {
    vi.stubEnv('LAB_STATE', await temporaryFolder())
    const lab = { name: 'iscsi-ha' }
    const out = {
      write: () => true,
      isTTY: false,
      hasColors: () => false,
      on: () => out,
      off: () => out,
    }
    const io = { stdout: out, stderr: out, signal: new AbortController().signal } as unknown as Io
    const purpose = lockPurposeOf(action)
    const held = await withLab(lab, { io, options: {}, lock: 'power', purpose, keepEvents: false }, () =>
      holderOf(pathsOf(lab).lock),
    )
    expect(held?.purpose).toBe(wanted)
  },
)
