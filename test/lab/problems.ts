import { parseLab } from '../../src/registry.js'
import { type Supported } from '../../src/lab/cluster-rules.js'
import { LabFileError } from '../../src/lab/parse.js'

export const here = import.meta.dirname

export const versions: Supported = { built: '1.36.3', minors: ['1.35', '1.36', '1.37'] }

export const thrownBy = (action: () => unknown): unknown => {
  try {
    action()
  } catch (error) {
    return error
  }
  throw new Error('nothing was thrown')
}

export const problemsOf = (text: string, file = 'lab.yaml'): LabFileError => {
  const error = thrownBy(() => parseLab(text, file, versions))
  if (!(error instanceof LabFileError)) throw error
  return error
}
