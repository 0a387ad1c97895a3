/**
 * If systemd runs the host, a seat and the gateway are scopes of `lab-class.slice`: each seat has an equal share of
 * the processors, and no more memory and processes than were budgeted for it. Otherwise only the limits of the
 * machines and of the account apply.
 */
import { existsSync, readFileSync } from 'node:fs'

const slice = 'lab-class.slice'

const isSystemd = (): boolean => existsSync('/run/systemd/system')

export interface Limits {
  /** Bytes. */
  readonly memory?: number | undefined
  /** Processes and threads. */
  readonly tasks?: number
}

/**
 * The command in a scope of its own. It is executed in place, so its process, file descriptors and exit code are the
 * command's own.
 */
export const inScope = (
  name: string,
  { memory, tasks }: Limits,
  command: readonly string[],
  systemd = isSystemd(),
): readonly string[] =>
  systemd
    ? [
        'systemd-run',
        ...['--scope', '--quiet', '--collect', `--slice=${slice}`],
        // A scope whose last process has not ended yet keeps its name.
        `--unit=${name}-${Date.now().toString(36)}`,
        ...['--property=CPUWeight=100'],
        ...(memory === undefined ? [] : [`--property=MemoryMax=${String(memory)}`]),
        ...(tasks === undefined ? [] : [`--property=TasksMax=${String(tasks)}`]),
        '--',
        ...command,
      ]
    : command

/** The file that moves processes into the control group of a scope of the class; undefined if there is none. */
export const scopeOf = (groups: string): string | undefined => {
  const path = /^0::(.*)$/m.exec(groups)?.[1]
  // A slice with a dash in its name lies in the one before the dash.
  return path?.includes(`/${slice}/`) === true ? `/sys/fs/cgroup${path}/cgroup.procs` : undefined
}

/** The command, run as a process of the scope of `pid`. */
export const besideProcess = (
  pid: number,
  command: readonly [string, ...string[]],
): readonly [string, ...string[]] => {
  const file = scopeOf(readFileSync(`/proc/${String(pid)}/cgroup`, 'utf8'))
  return file === undefined ? command : ['sh', '-c', 'echo $$ > "$0" && exec "$@"', file, ...command]
}
