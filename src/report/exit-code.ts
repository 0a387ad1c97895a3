import { type ExitCode, exitCodes } from '../error.js'
import type { RunReport } from './schema.js'

const verdictCodes: Readonly<Record<RunReport['verdict'], ExitCode>> = {
  PASS: exitCodes.ok,
  FAIL: exitCodes.failed,
  UNKNOWN: exitCodes.unknown,
}

/** The worst verdict of all: FAIL before UNKNOWN before PASS. */
export const exitCodeOf = (reports: readonly RunReport[]): ExitCode => {
  const worst = (['FAIL', 'UNKNOWN'] as const).find((verdict) =>
    reports.some((report) => report.verdict === verdict),
  )
  return verdictCodes[worst ?? 'PASS']
}
