/** The pages that the gateway serves, and the files that they load. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { projectRoot } from '../package.js'

const pages = join(projectRoot, 'templates', 'class')
const packageFolder = (name: string): string =>
  dirname(fileURLToPath(import.meta.resolve(`${name}/package.json`)))

/** The files that pages load, by address. There are seven: no part of a request is ever used as a path on disk. */
export const pageFiles = (): ReadonlyMap<string, { readonly type: string; readonly text: string }> => {
  const packages = [
    ['@xterm/xterm', 'lib/xterm.js'],
    ['@xterm/xterm', 'css/xterm.css'],
    ['@xterm/addon-fit', 'lib/addon-fit.js'],
  ] as const
  const sources = [
    ...readdirSync(join(pages, 'files')).map((name) => [name, join(pages, 'files', name)] as const),
    ...packages.map(([name, file]) => [`${name}/${file}`, join(packageFolder(name), file)] as const),
  ]
  return new Map(
    sources.map(([address, path]) => [
      `/files/${address}`,
      {
        type: `text/${path.endsWith('.css') ? 'css' : 'javascript'}; charset=utf-8`,
        text: readFileSync(path, 'utf8'),
      },
    ]),
  )
}

export const page = (name: 'desk' | 'board'): string => readFileSync(join(pages, `${name}.html`), 'utf8')

/** Allows only content from this process, and no embedding in other pages. */
export const policy = [
  "default-src 'none'",
  "script-src 'self'",
  // xterm.js sets colours and sizes as styles of elements.
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "font-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')
