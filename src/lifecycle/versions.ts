import { shell } from '../machine/sh.js'
import type { Session } from '../session.js'
import { version } from '../package.js'

/** The tested versions, so that two reports can be compared: those of lab itself and of what runs on its machines. */
export const versionsOf = async (session: Session): Promise<Readonly<Record<string, string>>> => {
  const { lab, signal } = session
  const [machine] = lab.machines
  const kernel = machine
    ? await session
        .machine(machine.name)
        .run(shell`uname -r`, { signal, timeout: 10 })
        .catch(() => 'not known')
    : 'not known'
  return {
    lab: version,
    node: process.versions.node,
    kernel,
    ...(lab.kubernetes ? { kubernetes: lab.kubernetes.version } : {}),
  }
}
