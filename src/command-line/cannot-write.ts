import { dirname } from 'node:path'
import { exitCodes, LabError, messageOf } from '../error.js'

/** The hint for a path that cannot be written. */
export const cannotWrite =
  (path: string) =>
  (error: unknown): never => {
    const { code } = (error instanceof LabError ? error.cause : error) as NodeJS.ErrnoException
    const why = messageOf(error)
    throw new LabError(
      'cannot-write',
      `${path} cannot be written: ${code === undefined || why.startsWith(code) ? '' : `${code}: `}${why}`,
      {
        hint: `ls -ld ${dirname(path)}; or name another place`,
        exitCode: exitCodes.usage,
        cause: error,
      },
    )
  }
