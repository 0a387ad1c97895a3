import { inspect } from 'node:util'
import { LabError, systemError } from '../error.js'
import { createMask, maskKnown } from './secrets.js'
import { painter, severalLines } from './wording.js'

export { maskSecrets } from './secrets.js'

/** An error's stack with those of its causes, or the inspected value of anything else that was thrown. */
const stackOf = (error: unknown): string => {
  if (!(error instanceof Error)) return inspect(error, { depth: 3 })
  const own = error.stack ?? `${error.name}: ${error.message}`
  return error.cause === undefined ? own : `${own}\nCaused by: ${stackOf(error.cause)}`
}

/**
 * The text of an error, without a final newline. For a `LabError`, and for an error of the host, it says what failed
 * and what to do. Any other error is a defect: the text is its stack and a request for a bug report.
 */
export const printError = (thrown: unknown, color: boolean, secrets: readonly string[] = []): string => {
  const paint = painter(color)
  const own = createMask(secrets)
  const mask = (text: string): string => own(maskKnown(text))
  const error = systemError(thrown) ?? thrown
  const cross = paint('red', '✖')
  const indented = (text: string): string =>
    severalLines(mask(text))
      .map((line, index) => (index === 0 ? line : `  ${line}`))
      .join('\n')
  if (!(error instanceof LabError))
    return [
      `${cross} ${indented(stackOf(error))}`,
      '',
      'This is a defect of lab, not a mistake of yours. Please report it, with the lines above, the command',
      'that you typed, and the lab file.',
    ].join('\n')
  const label = (name: string, text: string): string =>
    `  ${paint('bold', name.padEnd(5))} ${indented(text).replaceAll('\n', '\n      ')}`
  return [
    `${cross} ${indented(error.message)}`,
    ...(error.hint === undefined ? [] : [label('Hint:', error.hint)]),
    ...(error.log === undefined ? [] : [label('Log:', error.log)]),
  ].join('\n')
}
