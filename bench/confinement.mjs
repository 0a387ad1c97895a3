#!/usr/bin/env node
/**
 * `npm run bench:confinement -- --rounds 5`: measures what the confinement of a machine costs. Boots the kernel and the
 * base disk of a lab alternately as `lab` does, confined, and as a plain process of this user. The machine times five
 * kinds of work. Only ratios within one run are comparable, because hosts differ, and their load changes. Needs root,
 * and prepared parts: `lab prepare iscsi`.
 */
import { spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { preparedParts } from '../dist/parts/parts.js'
import { confined, machineUser } from '../dist/provider/uml/confine.js'
import { makeCow } from '../dist/provider/uml/cow.js'
import { median, tidy, whole } from './lab.mjs'

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } })
const rounds = whole('rounds', values.rounds, 1000)
const parts = await preparedParts({ images: [] })
if ('missing' in parts) {
  console.error(`parts are missing: ${parts.missing.join(', ')}: lab prepare iscsi`)
  tidy()
  process.exit(2)
}

/** A name and a command of each kind of work. The machine times them and prints `work NAME SECONDS`. */
const work = {
  computing: 'for ((i = 0; i < 150000; i++)); do :; done',
  'system calls': 'dd if=/dev/zero of=/dev/null bs=1 count=150000',
  'new processes': 'for ((i = 0; i < 300; i++)); do /bin/true; done',
  'writing 128 MiB': 'dd if=/dev/zero of=/var/tmp/file bs=1M count=128 conv=fsync',
  '200 synchronous writes': 'dd if=/dev/zero of=/var/tmp/file bs=4k count=200 oflag=dsync',
}
const script = [
  'mount -t proc proc /proc',
  ...Object.entries(work).flatMap(([name, command]) => [
    `t=$EPOCHREALTIME; { ${command}; } > /dev/null 2>&1; u=$EPOCHREALTIME`,
    `echo "work $(((\${u/./} - \${t/./}) / 1000)) ${name}" > /dev/console`,
  ]),
  'echo o > /proc/sysrq-trigger; sleep 60',
].join('\n')

const folder = mkdtempSync(join('/var/tmp', 'lab-confinement-'))
// The machine's own user must be able to enter.
chmodSync(folder, 0o711)
const seed = join(folder, 'script')
// The shell reads the script from a disk, whose size is a whole number of sectors.
writeFileSync(seed, script.padEnd(8192, '\n'))
const user = machineUser(1)

const cleanUp = () => {
  rmSync(folder, { recursive: true, force: true })
  tidy()
}

/** Boots one machine, on one processor, as `lab` does. @returns seconds of each kind of work, by name */
const boot = async (isConfined) => {
  const place = mkdtempSync(join(folder, 'machine-'))
  chmodSync(place, 0o711)
  const paths = isConfined
    ? { kernel: '/linux', base: '/base', cow: '/root.cow', script: '/script', run: '/run/' }
    : { kernel: parts.kernel, base: parts.baseDisk, cow: join(place, 'cow'), script: seed, run: `${place}/` }
  const cow = join(place, 'cow')
  const argv = [
    ...[paths.kernel, 'mem=256M', 'umid=bench', `uml_dir=${paths.run}`, 'seccomp=auto'],
    ...[`ubd0=${paths.cow},${paths.base}`, `ubd1r=${paths.script}`, 'root=/dev/ubda', 'rw'],
    ...[
      'con=null',
      'con0=null,fd:1',
      'panic=-1',
      'quiet',
      'drbd.minor_count=1',
      'init=/bin/bash',
      '--',
      '/dev/ubdb',
    ],
  ]
  await makeCow(cow, parts.baseDisk, paths.base)
  if (isConfined) chownSync(cow, user, user)
  const root = join(place, 'root')
  mkdirSync(root)
  const binds = [
    { from: parts.kernel, to: paths.kernel },
    { from: parts.baseDisk, to: paths.base },
    { from: cow, to: paths.cow, writable: true },
    { from: seed, to: paths.script },
    { from: '/dev/null', to: '/dev/null', writable: true },
  ]
  const { command, env } = isConfined ? confined(argv, { user, binds, root }) : { command: argv, env: {} }
  const child = spawn('taskset', ['--cpu-list', '1', ...command], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (printed += chunk))
  await new Promise((resolve) => child.once('close', resolve))
  const times = Object.fromEntries(
    [...printed.matchAll(/^work (\d+) (.*?)\r?$/gm)].map(([, ms, name]) => [name, Number(ms) / 1000]),
  )
  rmSync(place, { recursive: true, force: true })
  if (Object.keys(times).length === Object.keys(work).length) return times
  console.error(`the machine did not do all of its work:\n${printed.slice(-2000)}`)
  cleanUp()
  process.exit(1)
}

const all = { confined: [], plain: [] }
for (let round = 1; round <= rounds; round++) {
  // By turns, so that a slow minute of the host does not hit one side only.
  const order = round % 2 ? ['confined', 'plain'] : ['plain', 'confined']
  for (const how of order) all[how].push(await boot(how === 'confined'))
  console.error(`${round}/${rounds}`)
}
console.log(`median of ${rounds} boots each; seconds\n| work | plain | confined | ratio |\n|---|---|---|---|`)
for (const name of Object.keys(work)) {
  const [plain, held] = ['plain', 'confined'].map((how) => median(all[how].map((times) => times[name])))
  console.log(`| ${name} | ${plain.toFixed(2)} | ${held.toFixed(2)} | ${(held / plain).toFixed(2)} |`)
}
cleanUp()
