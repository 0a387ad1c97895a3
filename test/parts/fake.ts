/** Small parts, made by real shells in real sandboxes. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import type { Cache } from '../../src/parts/cache.js'
import { buildParts, hashesOf } from '../../src/parts/graph.js'
import type { Part } from '../../src/parts/part.js'
import type { PartProgress } from '../../src/parts/preparation.js'
import { dist } from '../helpers/cli.js'

export interface FakePart extends Partial<Part> {
  readonly id: string
  /** The script of a shell; `$OUT`, `$WORK` and `$NEEDS` are set. */
  readonly script?: string
}

export const fake = ({ id, script = 'echo made > $OUT/file', ...rest }: FakePart): Part => ({
  id,
  title: `Part ${id}`,
  needs: [],
  lane: id,
  values: script,
  files: [],
  reference: { seconds: 1, lines: 1, kept: 1, scratch: 1 },
  build: async (build) => {
    await build.run(['bash', '-euc', script], {
      environment: {
        OUT: build.out,
        WORK: build.work,
        NEEDS: (rest.needs ?? []).map((need) => build.need(need)).join(' '),
      },
    })
  },
  ...rest,
})

export const build = async (
  cache: Cache,
  parts: readonly Part[],
  targets: readonly string[] = [parts.at(-1)?.id ?? ''],
  signal: AbortSignal = new AbortController().signal,
): Promise<PartProgress[]> => {
  const seen: PartProgress[] = []
  await buildParts(parts, targets, cache, {
    signal,
    notice: () => undefined,
    progress: (update) => void seen.push(update),
  })
  return seen
}

export const keyOf = (parts: readonly Part[], id: string): string => `${id}-${hashesOf(parts).get(id) ?? ''}`

export const outputOf = (cache: Cache, parts: readonly Part[], id: string, file = 'file'): Promise<string> =>
  readFile(join(cache.path(keyOf(parts, id)), file), 'utf8')

export const states = (seen: readonly PartProgress[], id: string): string[] => [
  ...new Set(seen.filter(({ part }) => part === id).map(({ state }) => state)),
]

const program = `
  import { Cache } from '${join(dist, 'parts', 'cache.js')}'
  import { buildParts } from '${join(dist, 'parts', 'graph.js')}'
  const { ID: id, SCRIPT: script, CACHE: cache } = process.env
  const part = {
    id, title: 'Part ' + id, needs: [], lane: id, files: [], values: script,
    reference: { seconds: 1, lines: 1, kept: 0, scratch: 0 },
    build: ({ run, out, work }) => run(['bash', '-euc', script], { environment: { OUT: out, WORK: work } }),
  }
  try {
    await buildParts([part], [id], new Cache(cache), {
      signal: new AbortController().signal,
      progress: (update) => console.log(JSON.stringify(update)),
    })
  } catch (error) {
    const { code, message, hint, log } = error
    console.log(JSON.stringify({ code, message, hint, log }))
    process.exitCode = 1
  }
`

/**
 * The part `fake({ id, script })`, built by another process: its progress, or its error, one JSON object per line.
 * @param before words before the command line that runs it
 */
export const buildElsewhere = (
  cache: string,
  { id, script }: { readonly id: string; readonly script: string },
  before: readonly string[] = [],
) => {
  const line = [...before, process.execPath, '--input-type=module', '--eval', program]
  return execa('env', line, {
    env: { ID: id, SCRIPT: script, CACHE: cache },
    reject: false,
    stdin: 'ignore',
  })
}
