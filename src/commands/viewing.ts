/** What people see of a command while it works. */
import { maskKnown } from '../view/secrets.js'
import { createView, type View, wantsColor } from '../view/view.js'
import type { Io, Options } from './common.js'

/** Progress goes to stderr, so that standard output is what the command was asked for. */
export const viewFor = (io: Io, options: Options): View =>
  createView({
    stream: io.stderr,
    color: wantsColor(io.stderr),
    interactive: io.stderr.isTTY,
    events: options.events ?? false,
    eventsStream: io.stdout,
    mask: maskKnown,
  })
