#!/usr/bin/env node
/**
 * `npm run docs:pictures`: makes the pictures of README from the product itself, so that they show what it really
 * does: the topology from the lab file, recordings of `lab up` and `lab run` on real machines, the report page in a
 * browser, and the pages of a class, which the test of a class photographs. It takes ten minutes once the parts are
 * there. `-- --only topology`, `recordings` or `class` makes only some of them; only the topology needs no lab.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { recording } from './recording.mjs'
import { topology } from './topology.mjs'

const here = import.meta.dirname
const root = join(here, '..', '..')
const name = 'iscsi-ha'
const groups = ['topology', 'recordings', 'class']
const only = process.argv.indexOf('--only')
const group = only < 0 ? undefined : process.argv[only + 1]
if (only >= 0 && !groups.includes(group)) {
  console.error(`--only ${group ?? ''}: one of ${groups.join(', ')}`)
  process.exit(2)
}
const wants = (each) => group === undefined || group === each

const run = (command, args, options = {}) => {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], ...options })
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${String(status)}`}`)
}

if (wants('topology'))
  writeFileSync(
    join(here, 'topology.svg'),
    topology(parse(readFileSync(join(root, 'labs', `${name}.yaml`), 'utf8'))),
  )
if (group === 'topology') process.exit(0)
if (wants('class') && process.getuid() !== 0) {
  console.error('A class needs root: sudo npm run docs:pictures, or -- --only recordings')
  process.exit(3)
}

/** Each program, and the Debian package that has it. */
const programs = { asciinema: 'asciinema', chromium: 'chromium', cwebp: 'webp' }
const missing = Object.keys(programs).filter(
  (program) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0,
)
if (missing.length > 0) {
  const install = [
    'install',
    '--yes',
    '--no-install-recommends',
    ...missing.map((program) => programs[program]),
  ]
  if (process.getuid() !== 0) {
    console.error(`Not there: ${missing.join(', ')}: sudo apt-get ${install.join(' ')}`)
    process.exit(3)
  }
  console.log(`The pictures need ${missing.join(', ')}: apt-get ${install.join(' ')}`)
  run('apt-get', ['update', '--quiet=2'])
  run('apt-get', ['--quiet=2', ...install], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
}

const work = mkdtempSync(join('/var/tmp', 'lab-pictures-'))
const bin = join(work, 'bin')
mkdirSync(bin)
writeFileSync(
  join(bin, 'lab'),
  `#!/bin/sh\nexec '${process.execPath}' '${join(root, 'dist', 'cli.js')}' "$@"\n`,
  { mode: 0o755 },
)
const env = {
  ...process.env,
  PATH: `${bin}:${process.env.PATH}`,
  LAB_STATE: join(work, 'state'),
  TERM: 'xterm-256color',
  LC_ALL: 'C.UTF-8',
}

/** Records a command as it is typed, in a terminal of this size. */
const record = (file, command, rows) => {
  const cast = join(work, `${file}.cast`)
  run(
    'asciinema',
    ['rec', '--quiet', '--overwrite', '--cols', '100', '--rows', String(rows), '--command', command, cast],
    { env },
  )
  // The temporary folder is removed afterwards; readers use the default folder.
  const seen = readFileSync(cast, 'utf8').replaceAll(env.LAB_STATE, '~/.local/state/lab')
  writeFileSync(join(here, `${file}.svg`), recording(seen, { command }))
}

const recordLab = () => {
  record('up', `lab up ${name}`, 40)
  record('power-cut', `lab run ${name} power-cut`, 34)
  const shot = join(work, 'report.png')
  run(
    'chromium',
    [
      '--headless',
      '--disable-gpu',
      '--hide-scrollbars',
      ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
      '--blink-settings=preferredColorScheme=1',
      '--window-size=1100,1180',
      `--screenshot=${shot}`,
      `file://${join(env.LAB_STATE, name, 'runs', 'latest', 'report.html')}`,
    ],
    { stdio: 'ignore', env: { ...env, HOME: work } },
  )
  run('cwebp', ['-quiet', '-lossless', shot, '-o', join(here, 'report.webp')])
}

const photographClass = () => {
  const folder = join(work, 'class')
  run('npx', ['vitest', 'run', '--project', 'e2e', 'test/e2e/class.test.ts'], {
    cwd: root,
    env: { ...process.env, LAB_PICTURES: folder },
  })
  run('cwebp', ['-quiet', '-q', '80', join(folder, 'exercise-log-in.png'), '-o', join(here, 'seat.webp')])
  // The lower half of the board is empty.
  const crop = ['-crop', '0', '0', '1500', '330']
  run('cwebp', ['-quiet', '-q', '80', ...crop, join(folder, 'board.png'), '-o', join(here, 'board.webp')])
}

try {
  if (wants('recordings')) recordLab()
  if (wants('class')) photographClass()
} finally {
  if (wants('recordings')) spawnSync('lab', ['down', name], { env, stdio: 'inherit' })
  rmSync(work, { recursive: true, force: true })
}
