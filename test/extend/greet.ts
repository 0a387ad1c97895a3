/** A verb that this program does not have, as a file of src/command would be. */
import { asJson, type Io, type Options, type Verb } from '../../src/command-line/verb.js'

export const verb: Verb = {
  words: { who: 'whom to greet' },
  options: [asJson],
  run: (who: string, options: Options, io: Io) => {
    io.stdout.write(options.output === 'json' ? `{"hello":"${who}"}\n` : `hello ${who}\n`)
    return 5
  },
}
