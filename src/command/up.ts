import { bringUp } from './bring-up.js'
import {
  asJson,
  type Io,
  type Options,
  type Verb,
  withEvents,
  withHosts,
  withProvider,
  withSource,
  withWait,
  withYes,
} from './verb.js'

export const verb: Verb = {
  options: [withProvider, withHosts, asJson, withEvents, withWait, withYes, ...withSource],
  run: (lab: string, options: Options, io: Io) => bringUp(lab, options, io),
}
