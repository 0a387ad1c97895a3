/** How a command ends that did not do what was asked: errors on standard error, with every known secret masked. */
import { exitCodes, type ExitCode, LabError, systemError } from '../error.js'
import type { LabId } from '../identity.js'
import { succeeded } from '../plan/runner.js'
import type { Report } from '../plan/step.js'
import { printError } from '../view/errors.js'
import { wantsColor } from '../view/view.js'
import type { Io } from './verb.js'

/**
 * Prints an error.
 * @returns the exit code of the error
 */
export const fail = ({ stderr }: Pick<Io, 'stderr'>, error: unknown): ExitCode => {
  const shown = systemError(error) ?? error
  stderr.write(`${printError(shown, wantsColor(stderr))}\n`)
  return shown instanceof LabError ? shown.exitCode : exitCodes.failed
}

/** The exit code of a run. */
export const concluded = (report: Report): ExitCode =>
  report.interrupted ? exitCodes.interrupted : succeeded(report) ? exitCodes.ok : exitCodes.failed

/** Prints an error for each failed step, and how to continue if the run was interrupted. */
export const printFailures = (lab: LabId, report: Report, io: Pick<Io, 'stderr'>): void => {
  if (report.interrupted)
    io.stderr.write(`interrupted; to continue: lab up ${lab.name}; to remove the lab: lab down ${lab.name}\n`)
  for (const { outcome, step, reason, hint } of report.results)
    if (outcome === 'failed')
      fail(
        io,
        new LabError('step-failed', `${step.machine ?? lab.name}: ${step.title}: ${reason ?? ''}`, { hint }),
      )
}
