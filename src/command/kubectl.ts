import { exitCodes, LabError } from '../error.js'
import { imagesOf } from '../lab/images.js'
import { pathsOf } from '../state.js'
import { loadRunning } from '../lifecycle/load-lab.js'
import { refuseNotUp } from '../lifecycle/provider-in-use.js'
import { handOver } from '../command-line/hand-over.js'
import { type Io, type Options, type Verb, theirs } from '../command-line/verb.js'

const run = async (
  nameOrPath: string,
  words: readonly string[],
  _options: Options,
  io: Io,
): Promise<number> => {
  const lab = await loadRunning(nameOrPath)
  await refuseNotUp(lab)
  if (!lab.kubernetes)
    throw new LabError('no-kubernetes', `${lab.name} has no Kubernetes`, { exitCode: exitCodes.usage })
  const { preparedParts } = await import('../parts/parts.js')
  const parts = await preparedParts({ images: imagesOf(lab) })
  const program = 'missing' in parts ? 'kubectl' : parts.kubectl
  return handOver(
    program,
    ['--kubeconfig', pathsOf(lab).kubeconfig, ...theirs(words)],
    `lab prepare ${lab.name}`,
    io,
  )
}

export const verb: Verb = {
  passThrough: true,
  run,
}
