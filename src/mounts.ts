/** What is mounted where, as this process sees it. */
import { existsSync, readFileSync } from 'node:fs'

export interface Mount {
  /** Absolute path. */
  readonly point: string
  readonly options: readonly string[]
  /** For people: what is mounted, where, and how. */
  readonly text: string
}

/** The kernel writes a space, a tab, a line end and a backslash of a path as three octal digits, as in `my\040labs`. */
const decoded = (text: string): string =>
  text.replaceAll(/(?:\\[0-7]{3})+/g, (codes) =>
    Buffer.from(
      codes
        .split('\\')
        .slice(1)
        .map((octal) => Number.parseInt(octal, 8)),
    ).toString('utf8'),
  )

/** @param table the text of /proc/PID/mounts @returns in the order of mounting: a later one hides an earlier one */
export const mountsIn = (table: string): readonly Mount[] =>
  table
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, point = '', , options = ''] = line.split(' ')
      return { point: decoded(point), options: options.split(','), text: decoded(line) }
    })

/** Empty on a host without /proc, such as one with macOS. */
export const mounts = (): readonly Mount[] =>
  existsSync('/proc/self/mounts') ? mountsIn(readFileSync('/proc/self/mounts', 'utf8')) : []

/** The mounts at a folder and below it. @param folder absolute path, without a slash at its end */
export const mountsBelow = (folder: string, all = mounts()): readonly Mount[] =>
  all.filter(({ point }) => point === folder || point.startsWith(`${folder}/`))
