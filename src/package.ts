/** This program as it is installed: its folder and its version. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The top folder of this program: `src/` and `dist/` both lie directly in it. */
export const projectRoot = fileURLToPath(new URL('..', import.meta.url))

/** The version of this program. */
export const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}
