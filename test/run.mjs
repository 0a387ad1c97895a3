#!/usr/bin/env node
/**
 * Everything that `npm test` runs, with the time of each part: what the tests need of this host, unit tests, the parts
 * of machines, labs on real machines, lint and types, and the real VBoxManage. Labs on libvirt, and the whole course,
 * take longer: `npm run test:vagrant`, `test:course`.
 *
 * Building parts keeps two processors busy; labs use less, but must not wait. So tests that mostly wait run at the
 * same time as the parts, and tests that mostly compute run at the same time as the labs, with low priority.
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { installing, missingOf } from './host-programs.mjs'

const folder = mkdtempSync(join(tmpdir(), 'lab-test-'))
const spent = []
const totals = { passed: 0, failed: 0 }
let good = true
const root = process.getuid() === 0

/**
 * Starts a command with low priority. The kernel may count niceness only within a session, and divide time between
 * sessions: so the command gets a session of its own, which is made as nice.
 */
const modestly = [
  ...['setpriv', '--pdeathsig=KILL', 'nice', '-n', '19', 'sh', '-c'],
  'if [ -w /proc/self/autogroup ]; then nice > /proc/self/autogroup; fi; exec "$@"',
  'sh',
]
/** Ctrl-C does not reach these processes by itself. */
const sessions = new Set()
/** Marks the folders of labs that belong to this run; see test/e2e/lab.ts. */
process.env.LAB_TEST_RUN = `${process.pid}-`
/** The test's process is gone and did not clean up: its labs are still there. */
const removeLabs = () => {
  const folders = readdirSync('/var/tmp').filter((name) => name.startsWith(`lab-e2e-${process.pid}-`))
  for (const path of folders.map((name) => join('/var/tmp', name))) {
    const env = { ...process.env, LAB_STATE: join(path, 'state') }
    const entries = existsSync(env.LAB_STATE) ? readdirSync(env.LAB_STATE) : []
    // Next to the folders of labs are their locks, `.NAME.lock`.
    for (const lab of entries.filter((name) => !name.startsWith('.')))
      spawnSync(process.execPath, ['dist/cli.js', 'down', lab, '--wait'], { env, stdio: 'inherit' })
    rmSync(path, { recursive: true, force: true })
  }
}
for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, () => {
    for (const { pid } of sessions) {
      try {
        process.kill(-pid, signal)
      } catch {
        // It ended by itself just now.
      }
    }
    removeLabs()
    rmSync(folder, { recursive: true, force: true })
    process.exit(130)
  })

/**
 * @param held its output is printed when it ends, because it runs at the same time as another
 * @param modest it is in no hurry, but others are
 */
const run = async (title, command, args, { held = false, modest = false } = {}) => {
  console.log(`\n=== ${title}: ${[command, ...args].join(' ')}`)
  const begun = performance.now()
  const output = held ? 'pipe' : 'inherit'
  const [program, ...words] = [...(modest ? modestly : []), command, ...args]
  const child = spawn(program, words, { stdio: ['ignore', output, output], detached: modest })
  if (modest) sessions.add(child)
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (printed += chunk))
  const status = await new Promise((resolve) => {
    child.once('error', (error) => {
      printed += `${error.message}\n`
      resolve(1)
    })
    child.once('close', (code) => resolve(code ?? 1))
  })
  sessions.delete(child)
  if (printed) console.log(`\n=== ${title}, now done, has printed:\n${printed}`)
  spent.push({ title, seconds: (performance.now() - begun) / 1000, good: status === 0 })
  if (status !== 0) good = false
  return status === 0
}

/** @param runner the command that starts vitest, with its first words */
const tests = async (title, args = [], { runner = ['npx', 'vitest', 'run'], ...options } = {}) => {
  const file = join(folder, `${title}.json`)
  const [command, ...words] = runner
  const reported = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
  await run(title, command, [...words, ...reported, ...args], options)
  try {
    const { numPassedTests, numFailedTests, success } = JSON.parse(readFileSync(file, 'utf8'))
    totals.passed += numPassedTests
    totals.failed += numFailedTests
    // A file that could not be loaded has no tests to count, but is still a failure.
    if (!success && numFailedTests === 0) totals.failed += 1
  } catch (error) {
    console.error(`${title}: no result: ${error.message}`)
    totals.failed += 1
  }
}

/** What the tests use in addition to the product. A test is left out if something that it uses is missing. */
const missing = missingOf([
  'vagrant',
  '/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json',
  'virsh',
  'libvirtd',
  'qemu-system-x86_64',
  'qemu-img',
  'dnsmasq',
  'ssh',
  'ss',
  'pgrep',
  'script',
])
if (missing.length > 0) {
  const install = installing(missing)
  if (root) {
    console.log(`The tests need ${missing.join(', ')}: apt-get ${install.join(' ')}`)
    await run('host packages', 'sh', [
      '-c',
      `apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 ${install.join(' ')} >/dev/null`,
    ])
  } else {
    console.log(`Tests that need ${missing.join(', ')} are left out: sudo apt-get ${install.join(' ')}`)
  }
}

const prepare = (lab, options) =>
  run(`parts of ${lab}`, process.execPath, ['dist/cli.js', 'prepare', lab], options)
const labs = (title, files, options) =>
  tests(title, ['--project', 'e2e', ...files.map((file) => join('test', 'e2e', file))], options)
/** The real programs behind the providers of virtual machines, in namespaces of their own. */
const vagrant = (title, words, options) =>
  tests(title, [], { runner: [process.execPath, 'test/vagrant/run.mjs', ...words], ...options })
/**
 * Nothing is started later than this, in milliseconds: on a slow host, what is still running may take half an hour.
 */
const latestStart = 55 * 60_000
const leftOut = []
/** @param how to run it by itself @returns whether there is time for it; otherwise it is named at the end */
const hasTime = (what, how) => {
  if (performance.now() < latestStart) return true
  leftOut.push(`${what}, for which no time was left: ${how}`)
  return false
}
/** Labs with Kubernetes, the most valuable first; files of test/e2e that are not listed come last. */
const byWorth = ['iscsi-ha.test.ts', 'faults.test.ts']
/** Together they take at least half an hour: run them by themselves if you change what they test. */
const apart = [
  'class.test.ts',
  'class-hosts.test.ts',
  'class-isolation.test.ts',
  'bundle.test.ts',
  'breakages.test.ts',
  'long-life.test.ts',
  'lun-guard.test.ts',
  'target-away.test.ts',
  'interrupted.test.ts',
  'many-machines.test.ts',
  'hosts.test.ts',
  'hosts-kubernetes.test.ts',
  'hosts-soak.test.ts',
  'existing-cluster.test.ts',
  'two-targets.test.ts',
  'control-planes.test.ts',
  'hacmp.test.ts',
]
// Labs without Kubernetes leave a processor to others.
const light = ['iscsi.test.ts', 'provider.test.ts', 'confinement.test.ts', 'chap.test.ts', 'registry.test.ts']
const course = ['course.test.ts']
const files = readdirSync(join(import.meta.dirname, 'e2e')).filter((file) => file.endsWith('.test.ts'))
const others = files.filter((file) => ![...byWorth, ...apart, ...light, ...course].includes(file))
const labsInTurn = async (names) => {
  for (const file of names.filter((name) => files.includes(name)))
    if (hasTime(`test/e2e/${file}`, `npm run test:e2e -- ${file}`)) await labs(file, [file])
}
const beside = { held: true, modest: true }
const looks = async () => {
  await run('types', 'npx', ['tsc', '--noEmit'], beside)
  await run('lint', 'npm', ['run', '--silent', 'lint'], beside)
  if (root) await vagrant('the real VBoxManage', ['--vboxmanage'], beside)
}

await run('build', 'npm', ['run', '--silent', 'build'])
const [prepared] = await Promise.all([
  prepare('iscsi-ha'),
  tests('unit tests', ['--project', 'unit'], { held: true }),
])
if (prepared) {
  const forCourse = prepare('deployment', beside)
  const looked = forCourse.then(looks)
  await labsInTurn(byWorth)
  await Promise.all([
    labs(
      'light labs on real machines',
      light.filter((file) => files.includes(file)),
    ),
    forCourse.then((good) => (good ? labs('a lab of the course', course, { held: true }) : undefined)),
    looked,
  ])
  await labsInTurn(others)
} else await looks()
for (const file of apart) leftOut.push(`test/e2e/${file}: npm run test:e2e -- ${file}`)
leftOut.push('all exercises but one on their labs: npm run test:learn')
leftOut.push('the course but for one experiment each of two of its labs: npm run test:course')
if (root) {
  leftOut.push(
    'labs on libvirt, a box for arm64, the contract of the providers on emulated machines: npm run test:vagrant, or -- --short for iscsi alone',
  )
} else leftOut.push('the real VBoxManage, and labs on libvirt, which need root: sudo npm run test:vagrant')

rmSync(folder, { recursive: true, force: true })
console.log()
for (const what of leftOut) console.log(`Left out: ${what}`)
console.log('\nTime spent')
for (const { title, seconds, good: passed } of spent)
  console.log(`  ${passed ? '✔' : '✖'} ${title.padEnd(24)} ${seconds.toFixed(0).padStart(5)} s`)
console.log(`  = ${''.padEnd(24)} ${(performance.now() / 1000).toFixed(0).padStart(5)} s`)
console.log(`${totals.passed} passed, ${totals.failed} failed`)
process.exit(good && totals.failed === 0 && totals.passed > 0 ? 0 : 1)
