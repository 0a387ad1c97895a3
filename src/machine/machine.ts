import { codeOf, LabError } from '../error.js'
import { type Command, shell } from './sh.js'

export interface CommandResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

export interface ExecOptions {
  /** Written to the command's standard input, which is then closed. */
  readonly input?: string | Buffer | undefined
  /** Ends the command; the call then rejects. */
  readonly signal?: AbortSignal | undefined
  /** Seconds until the call rejects; default 60. Emulated machines get longer. */
  readonly timeout?: number | undefined
}

/** A way to run commands on a machine: the seam that tests replace. */
export interface Transport {
  /** For messages: `worker1 (192.168.56.21)`. */
  readonly address: string
  /** Rejects only if the command could not finish. */
  exec(command: string, options: ExecOptions): Promise<CommandResult>
  close(): Promise<void>
}

/** A command that ran and failed. The error keeps its whole output; the message quotes the end. */
export class CommandError extends LabError {
  readonly machine: string
  readonly command: string
  readonly result: CommandResult

  constructor(machine: string, command: string, result: CommandResult) {
    const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-3).join(' | ')
    super(
      codeOf(said, 'command-failed'),
      `${machine}: ${command}: exit code ${String(result.exitCode)}${said ? `: ${said}` : ''}`,
    )
    this.name = 'CommandError'
    this.machine = machine
    this.command = command
    this.result = result
  }
}

export interface FileToWrite {
  readonly content: string
  /** Octal, default 0644. */
  readonly mode?: number
}

/** A machine of the lab as steps use it; commands run as root. */
export class Machine {
  readonly name: string
  readonly #transport: Transport

  constructor(name: string, transport: Transport) {
    this.name = name
    this.#transport = transport
  }

  /**
   * Runs a command written with the `shell` tag.
   * @throws CommandError for a non-zero exit code
   */
  async run(command: Command, options: ExecOptions = {}): Promise<string> {
    const result = await this.try(command, options)
    if (result.exitCode !== 0) throw new CommandError(this.name, command.shown, result)
    return result.stdout.trim()
  }

  /** Like `run`, but a non-zero exit code is an answer, not an error. */
  try(command: Command, options: ExecOptions = {}): Promise<CommandResult> {
    return this.#transport.exec(command.text, options)
  }

  /** Replaces a file as a whole: a reader sees either the old or the new content. */
  async write(
    path: string,
    { content, mode = 0o644 }: FileToWrite,
    options: ExecOptions = {},
  ): Promise<void> {
    const next = `${path}.lab-new`
    const octal = mode.toString(8)
    // To the machine, a dropped connection looks like the end of the file, so the size is compared.
    const size = Buffer.byteLength(content)
    await this.run(
      shell`mkdir -p "$(dirname ${path})" && umask 077 && cat > ${next} && test "$(wc -c < ${next})" -eq ${size} && chmod ${octal} ${next} && mv ${next} ${path}`,
      { ...options, input: content },
    )
  }

  close(): Promise<void> {
    return this.#transport.close()
  }
}
