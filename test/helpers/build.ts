/** Builds dist/ once before the tests: commands, locks and supervisors are tested as separate processes. */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'

const root = join(import.meta.dirname, '..', '..')
/** Next to the build that it describes: several worktrees may share node_modules. */
const stamp = join(root, 'dist', '.built-from')

/** By content and not by time: an edit during the compilation must not count as built. */
const hashOfSources = (): string => {
  const hash = createHash('sha256')
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => join('src', file))
  for (const file of ['tsconfig.json', 'tsconfig.build.json', ...sources.sort()])
    hash.update(`${file}\0`).update(readFileSync(join(root, file)))
  return hash.digest('hex')
}

export default async (): Promise<void> => {
  const sources = hashOfSources()
  const built = existsSync(stamp) ? readFileSync(stamp, 'utf8') : ''
  if (built === sources && existsSync(join(root, 'dist', 'cli.js'))) return
  const { exitCode, stdout } = await execa('npx', ['tsc', '-p', 'tsconfig.build.json'], {
    cwd: root,
    reject: false,
    stdin: 'ignore',
  })
  // The compiler writes JavaScript even if there are type errors; finding those is the job of `tsc --noEmit`.
  if (exitCode !== 0) process.stderr.write(`dist/ was built from sources with type errors:\n${stdout}\n`)
  if (!existsSync(join(root, 'dist', 'cli.js'))) throw new Error(`tsc wrote no dist/cli.js:\n${stdout}`)
  writeFileSync(stamp, sources)
}
