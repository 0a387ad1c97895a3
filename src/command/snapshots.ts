import { Option } from 'commander'
import { exitCodes, type ExitCode } from '../error.js'
import { describe, removeSnapshot, sizeOf, snapshotsOf } from '../snapshot/snapshot.js'
import { printJson } from '../command-line/json.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { refuseNotUp } from '../lifecycle/provider-in-use.js'
import { asJson, type Io, type Options, type Verb, withWait } from '../command-line/verb.js'

const run = async (
  nameOrPath: string,
  options: Options & { readonly remove?: readonly string[] },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  await refuseNotUp(lab)
  if (options.remove) {
    const { withLab } = await import('../command-line/with-lab.js')
    await withLab(lab, { io, options, lock: 'snapshots', keepEvents: true }, async () => {
      for (const name of options.remove ?? []) await removeSnapshot(lab, name)
    })
  }
  const snapshots = await snapshotsOf(lab)
  if (options.output === 'json') printJson(io, 'lab.snapshots/v1', { name: lab.name, snapshots })
  else if (snapshots.length === 0)
    io.stdout.write(`${lab.name} has no snapshots. To take one: lab snapshot ${lab.name} NAME\n`)
  else {
    const width = Math.max(...snapshots.map(({ name }) => name.length))
    for (const snapshot of snapshots)
      io.stdout.write(
        `${snapshot.name.padEnd(width)}  ${snapshot.taken.slice(0, 19).replace('T', ' ')} UTC  ${sizeOf(snapshot).padStart(9)}  ${describe(snapshot)}\n`,
      )
  }
  return exitCodes.ok
}

export const verb: Verb = {
  options: [new Option('--remove <names...>', 'remove these first'), asJson, withWait],
  run,
}
