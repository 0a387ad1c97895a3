#!/usr/bin/env node
/**
 * `npm run docs:pictures`: makes the pictures of README from the product itself, so that they show what it really
 * does: the topology from the lab file, recordings of `lab up` and `lab run` on real machines, and the report page in
 * a browser. It takes five minutes once the parts are there. `-- --only topology` needs no lab.
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
const onlyTopology = process.argv.includes('topology')

const run = (command, args, options = {}) => {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], ...options })
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${String(status)}`}`)
}

writeFileSync(
  join(here, 'topology.svg'),
  topology(parse(readFileSync(join(root, 'labs', `${name}.yaml`), 'utf8'))),
)
if (onlyTopology) process.exit(0)

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

try {
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
} finally {
  spawnSync('lab', ['down', name], { env, stdio: 'inherit' })
  rmSync(work, { recursive: true, force: true })
}
