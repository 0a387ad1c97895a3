/** What people see of a command while it works. */
import type { Lab } from '../lab/lab.js'
import { createView, type View, wantsColor } from '../view/view.js'
import { type Io, type Options, secretsIn } from './common.js'

/** Progress goes to stderr, so that standard output is what the command was asked for. */
export const viewFor = (io: Io, options: Options, lab?: Lab): View =>
  createView({
    stream: io.stderr,
    color: wantsColor(io.stderr),
    interactive: io.stderr.isTTY,
    events: options.events ?? false,
    eventsStream: io.stdout,
    secrets: lab ? secretsIn(lab) : [],
  })
