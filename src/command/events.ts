import { Option } from 'commander'
import { exitCodes, type ExitCode, Interrupted } from '../error.js'
import { pathsOf } from '../state.js'
import { type KeptRecord, readEvents } from '../view/event-file.js'
import { maskKnown } from '../view/secrets.js'
import { counted } from '../view/wording.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { refuseNotUp } from '../lifecycle/provider-in-use.js'
import { asJson, type Io, type Options, type Verb } from '../command-line/verb.js'

/** The line for people about a record. */
const textOf = (record: KeptRecord): string => {
  switch (record.type) {
    case 'notice':
      return record.text
    case 'run-started':
      return `${record.title}: ${counted(record.steps.length, 'step')}`
    case 'run-finished':
      return `${record.title}: ${record.interrupted ? 'interrupted' : 'ended'} after ${record.seconds.toFixed(1)} s`
    case 'part':
      return `${record.title}: ${record.state}`
    case 'step-applying':
      return `${record.title}: because ${record.why}`
    case 'step-progress':
      return `${record.title}: ${record.note}`
    case 'step-waiting':
      return `${record.title}: waits until ${record.waitingFor}: ${record.saw}`
    case 'step-finished':
      return `${record.title}: ${record.outcome}${record.reason === null ? '' : `: ${record.reason}`}`
    case 'step-started':
      return record.title
    case 'trial':
      return [record.trial, record.what, record.fault ?? '', record.ok === false ? 'no:' : '', record.detail]
        .filter((word) => word !== '')
        .join(' ')
    // A later version may have written it.
    default:
      return ''
  }
}

/** Prints the kept events of a lab, oldest first. */
const run = async (
  nameOrPath: string,
  options: Options & { readonly follow?: boolean },
  io: Io,
): Promise<ExitCode> => {
  const lab = await loadRunning(nameOrPath)
  await refuseNotUp(lab)
  for await (const record of readEvents(pathsOf(lab).events, options.follow ?? false, io.signal))
    io.stdout.write(
      maskKnown(
        options.output === 'json'
          ? `${JSON.stringify(record)}\n`
          : `${record.time}  ${record.type.padEnd(13)}  ${textOf(record)}\n`,
      ),
    )
  if (io.signal.aborted) throw new Interrupted()
  if (options.follow) io.stderr.write(`${lab.name} is gone: its folder ${pathsOf(lab).root} was removed\n`)
  return exitCodes.ok
}

export const verb: Verb = {
  options: [
    new Option('-f, --follow', 'follow events as they happen, until Ctrl-C or until the lab is gone'),
    asJson,
  ],
  looks: true,
  run,
}
