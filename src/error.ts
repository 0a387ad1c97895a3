/** Process exit codes, documented in docs/commands.md. */
export const exitCodes = {
  ok: 0,
  /** A step, a check or a command failed. */
  failed: 1,
  /** The command line or the lab file is wrong; nothing was touched. */
  usage: 2,
  /** This host lacks something; nothing was touched. */
  host: 3,
  /** Another `lab` holds the lab. */
  busy: 4,
  /** A scenario ended without anybody being able to say whether the lab stood it. */
  unknown: 5,
  /** Ctrl-C, SIGTERM, or a terminal that was closed. */
  interrupted: 130,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

export interface LabErrorDetails {
  /** The next thing to type, or to look at. */
  readonly hint?: string | undefined
  /** The file that has the whole story. */
  readonly log?: string | undefined
  readonly exitCode?: ExitCode | undefined
  readonly cause?: unknown
}

/**
 * An error that a user can act on. Its message says what failed and where; the hint says what to type
 * next. It is printed without a stack trace; any other error is a defect of ours and keeps its stack.
 * Decide by `code`, never by message text.
 */
export class LabError extends Error {
  readonly code: string
  readonly hint: string | undefined
  readonly log: string | undefined
  readonly exitCode: ExitCode

  constructor(code: string, message: string, details: LabErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = 'LabError'
    this.code = code
    this.hint = details.hint
    this.log = details.log
    this.exitCode = details.exitCode ?? exitCodes.failed
  }
}

/**
 * The code of an error that is over when somebody else has less to do: what was asked is fine, and who was asked is
 * there.
 */
export const tooBusy = 'too-busy'

/**
 * What an API server, or a program that asks one, says when it or its etcd has too much to do: words of kube-apiserver's
 * and etcd's timeouts, and of Go's HTTP client.
 */
const busyWords =
  /etcdserver: (request timed out|too many requests|leader changed)|Error from server \((Timeout|TooManyRequests)\)|TLS handshake timeout|Client\.Timeout exceeded|context deadline exceeded|stream error: .*INTERNAL_ERROR/

/** The code of a change that was refused because the object is not any more what the change was decided on. */
export const conflict = 'conflict'

/** The API server's words for it (HTTP 409, reason Conflict). */
const conflictWords = 'the object has been modified'

/** The code for a program that failed and said this: `too-busy`, `conflict`, or what its errors have otherwise. */
export const codeOf = (said: string, otherwise: string): string =>
  busyWords.test(said) ? tooBusy : said.includes(conflictWords) ? conflict : otherwise

/** The work was ended by Ctrl-C, SIGTERM, or because its terminal was closed. */
export class Interrupted extends LabError {
  constructor() {
    super('interrupted', 'interrupted', { exitCode: exitCodes.interrupted })
  }
}

/** What the work comes to, unless the signal is first: nobody has to wait for a machine that hangs. */
export const unlessAborted = <T>(signal: AbortSignal, work: Promise<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    const interrupt = (): void => {
      reject(new Interrupted())
    }
    if (signal.aborted) interrupt()
    signal.addEventListener('abort', interrupt, { once: true })
    work.then(resolve, reject).finally(() => {
      signal.removeEventListener('abort', interrupt)
    })
  })

/** Why the system did not do what was asked, where that is the host's to say and no mistake in a program. */
const systemReasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'its file system is read-only',
  ENOSPC: 'its file system is full',
  EDQUOT: 'your share of its file system is used up',
  EFBIG: 'its file system takes no file of this size',
  EIO: 'what it lies on fails (dmesg says more)',
  ELOOP: 'its symbolic links go round in a circle',
  ENAMETOOLONG: 'a name in it is too long',
  ENOTDIR: 'a part of it is a file, not a folder',
  EISDIR: 'it is a folder, not a file',
  EMFILE: 'too many files are open (ulimit -n)',
  ENFILE: 'too many files are open on this host',
  ENOMEM: 'there is not enough memory',
  EAGAIN: 'there are too many processes (ulimit -u)',
  ESTALE: 'its file server lost it',
  ENOTSUP: 'its file system cannot do that',
}

/** The words for a code of the system such as `ENOSPC`; undefined for all that may be a mistake of ours. */
export const systemReason = (code: string | undefined): string | undefined => systemReasons[code ?? '']

const systemVerbs: Readonly<Record<string, string>> = {
  open: 'opened',
  read: 'read',
  scandir: 'read',
  stat: 'looked at',
  lstat: 'looked at',
  access: 'looked at',
  mkdir: 'made',
  unlink: 'removed',
  rmdir: 'removed',
  rm: 'removed',
  copyfile: 'copied',
}

/**
 * What the host refused, as an error that a user can act on: a full disk, a folder of somebody else. Undefined for
 * all that may be a mistake of ours, as a file that is not there.
 * @param named the path that it is about, where the error itself does not say so
 */
export const systemError = (error: unknown, named?: string): LabError | undefined => {
  if (!(error instanceof Error) || error instanceof LabError) return undefined
  const { code = '', syscall = '', path } = error as NodeJS.ErrnoException
  const program = /^spawn (.*)$/.exec(syscall)?.[1]
  if (program !== undefined && code === 'ENOENT')
    return new LabError('no-program', `${program}: there is no such program here`, {
      hint: 'lab doctor',
      exitCode: exitCodes.host,
      cause: error,
    })
  const reason = systemReasons[code]
  if (reason === undefined) return undefined
  const where = named ?? path ?? program
  const what = where ?? 'a file'
  return new LabError(
    `system-${code.toLowerCase()}`,
    `${what} cannot be ${program === undefined ? (systemVerbs[syscall] ?? 'written') : 'started'}: ${reason}`,
    {
      ...(code === 'ENOSPC' || code === 'EDQUOT' ? { hint: ['df -h', where].join(' ').trim() } : {}),
      ...(where !== undefined && ['EACCES', 'EPERM', 'EROFS'].includes(code)
        ? { hint: `ls -ld ${where}` }
        : {}),
      exitCode: exitCodes.host,
      cause: error,
    },
  )
}

/** The text of any thrown value. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
