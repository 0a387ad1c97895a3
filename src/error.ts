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
  /** A scenario ended, and it is unknown whether the lab survived it. */
  unknown: 5,
  /** Ctrl-C, SIGTERM, or a terminal that was closed. */
  interrupted: 130,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

export interface LabErrorDetails {
  /** The next thing to type, or to look at. */
  readonly hint?: string | undefined
  /** The file with the full output. */
  readonly log?: string | undefined
  readonly exitCode?: ExitCode | undefined
  readonly cause?: unknown
}

/**
 * An error that a user can act on. Its message says what failed and where; the hint says what to type next. It is
 * printed without a stack trace. Any other error is a defect of lab and keeps its stack. Decide by `code`, never by
 * message text.
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
 * The code of an error that goes away when the other side has less to do: the request is fine, and the other side is
 * there.
 */
export const tooBusy = 'too-busy'

/**
 * What an overloaded API server, or a client of one, says: phrases of kube-apiserver's and etcd's timeouts, and of
 * Go's HTTP client.
 */
const busyWords =
  /etcdserver: (request timed out|too many requests|leader changed)|Error from server \((Timeout|TooManyRequests)\)|TLS handshake timeout|Client\.Timeout exceeded|context deadline exceeded|stream error: .*INTERNAL_ERROR/

/** The code of a change that was refused because the object has changed since the decision. */
export const conflict = 'conflict'

/** The API server's phrase for HTTP 409, reason Conflict. */
const conflictWords = 'the object has been modified'

/** The code of a request for something that is not there. */
export const notThere = 'not-there'

/** The code of a command that ran in a container, and ended with an exit code other than 0. */
export const commandFailed = 'command-failed'

/** The code for the output of a failed program: `too-busy`, `conflict`, or else the given one. */
export const codeOf = (said: string, otherwise: string): string =>
  busyWords.test(said) ? tooBusy : said.includes(conflictWords) ? conflict : otherwise

/** The work was ended by Ctrl-C, by SIGTERM, or by closing its terminal. */
export class Interrupted extends LabError {
  constructor() {
    super('interrupted', 'interrupted', { exitCode: exitCodes.interrupted })
  }
}

/** The result of the work, unless the signal comes first: nobody has to wait for a machine that hangs. */
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

/** Explanations of system errors whose cause is the host and not a mistake in a program. */
const systemReasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'its file system is read-only',
  ENOSPC: 'its file system is full',
  EDQUOT: 'your quota on its file system is used up',
  EFBIG: 'its file system does not support a file of this size',
  EIO: 'the device below it fails (dmesg says more)',
  ELOOP: 'its symbolic links form a loop',
  ENAMETOOLONG: 'a name in it is too long',
  ENOTDIR: 'a part of its path is a file, not a folder',
  EISDIR: 'it is a folder, not a file',
  EMFILE: 'too many files are open (ulimit -n)',
  ENFILE: 'too many files are open on this host',
  ENOMEM: 'there is not enough memory',
  EAGAIN: 'there are too many processes (ulimit -u)',
  ESTALE: 'the file server no longer has it',
  ENOTSUP: 'its file system does not support this',
}

/** The explanation of a system error such as `ENOSPC`; undefined for errors that may be a defect of lab. */
export const systemReason = (code: string | undefined): string | undefined => systemReasons[code ?? '']

/** What to type about a system error. */
const systemHint = (code: string, where: string | undefined): string | undefined => {
  const hints: Readonly<Record<string, string>> = {
    ENOSPC: ['df -h', where].join(' ').trim(),
    EDQUOT: ['df -h', where].join(' ').trim(),
    EIO: 'dmesg | tail',
    EMFILE: 'ulimit -n 4096',
    ENFILE: 'cat /proc/sys/fs/file-nr',
    ENOMEM: 'free -h',
    EAGAIN: 'ulimit -u',
  }
  return hints[code] ?? (where === undefined ? undefined : `ls -ld ${where}`)
}

const systemVerbs: Readonly<Record<string, string>> = {
  open: 'opened',
  read: 'read',
  scandir: 'read',
  stat: 'looked at',
  lstat: 'looked at',
  access: 'looked at',
  connect: 'reached',
  mkdir: 'made',
  unlink: 'removed',
  rmdir: 'removed',
  rm: 'removed',
  copyfile: 'copied',
}

/**
 * A system error as an error that a user can act on, such as a full disk or a folder of another user. Undefined for
 * errors that may be a defect of lab, such as a missing file.
 * @param named the path that it concerns, if the error itself does not say so
 */
export const systemError = (error: unknown, named?: string): LabError | undefined => {
  if (!(error instanceof Error) || error instanceof LabError) return undefined
  // The errors of sockets call their path an address.
  const {
    code = '',
    syscall = '',
    address,
    path = address,
  } = error as NodeJS.ErrnoException & {
    readonly address?: string
  }
  const program = /^spawn (.*)$/.exec(syscall)?.[1]
  if (program !== undefined && code === 'ENOENT')
    return new LabError('no-program', `${program}: not found on this host`, {
      hint: 'lab doctor',
      exitCode: exitCodes.host,
      cause: error,
    })
  if (syscall === 'uv_cwd')
    return new LabError('no-folder', 'the current folder no longer exists', {
      hint: 'cd',
      exitCode: exitCodes.usage,
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
      hint: systemHint(code, where),
      exitCode: exitCodes.host,
      cause: error,
    },
  )
}

/** The text of any thrown value. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
