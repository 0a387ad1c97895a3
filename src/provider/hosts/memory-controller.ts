/** Switches on the kernel's memory controller, without which there is no kubelet. */
import { LabError } from '../../error.js'
import type { Transport } from '../../machine/machine.js'
import { memoryFix, withMemory } from './boot-line.js'
import { askFacts } from './facts.js'
import { type Patience, restartHost } from './restart.js'
import { bytesOf, type Recorder, replaceFile, runAsRoot } from './undo-record.js'

/**
 * Does nothing on a host that has it. Where the host's boot line can switch it on, the line is recorded and edited, and
 * the host is restarted.
 * @throws LabError `no-memory-controller` if only the host's owner can change that
 */
export const switchOnMemory = async (
  root: Transport,
  record: Recorder,
  progress: (note: string) => void,
  patience?: Patience,
): Promise<void> => {
  const facts = await askFacts(root)
  const fix = memoryFix(facts)
  if (!fix) return
  const fail = (why: string, hint: string): LabError =>
    new LabError('no-memory-controller', `${root.address}: no memory controller in cgroup v2: ${why}`, {
      hint,
    })
  // A command that was killed may have edited the line, and not restarted the host.
  if (fix.by === 'owner' && !record.hasBootLine) throw fail(fix.why, fix.fix)
  if (fix.by === 'lab') {
    await record.bootLine(fix.file)
    const content = await bytesOf(root, fix.file)
    await runAsRoot(root, replaceFile(fix.file, withMemory(content)), { what: `writing ${fix.file}` })
  }
  await restartHost(root, `${facts.bootFile} has cgroup_enable=memory now`, progress, patience)
  const { kernel, controllers } = await askFacts(root)
  if (!controllers.includes('memory'))
    throw fail(
      `${kernel} ignores cgroup_enable=memory in ${facts.bootFile}`,
      'use the kernel of Raspberry Pi OS, or another one of the distribution',
    )
}
