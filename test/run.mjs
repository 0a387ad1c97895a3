#!/usr/bin/env node
/**
 * Everything that `npm test` means, in order, with what each part took: what the tests need of this host,
 * lint and types, unit tests, the parts that machines are made of, labs on real machines, and the real VBoxManage.
 * Labs on libvirt, and the whole course, take longer: `npm run test:vagrant`, `npm run test:course`.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folder = mkdtempSync(join(tmpdir(), 'lab-test-'))
const spent = []
const totals = { passed: 0, failed: 0 }
let good = true

const run = (title, command, args) => {
  console.log(`\n=== ${title}: ${[command, ...args].join(' ')}`)
  const begun = performance.now()
  const { status } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  spent.push({ title, seconds: (performance.now() - begun) / 1000, good: status === 0 })
  if (status !== 0) good = false
  return status === 0
}

/** @param runner what starts vitest, with its first words */
const tests = (title, args = [], [command, ...words] = ['npx', 'vitest', 'run']) => {
  const file = join(folder, `${title}.json`)
  run(title, command, [
    ...words,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
    ...args,
  ])
  try {
    const { numPassedTests, numFailedTests, success } = JSON.parse(readFileSync(file, 'utf8'))
    totals.passed += numPassedTests
    totals.failed += numFailedTests
    // A file that could not even be loaded has no tests to count, and is a failure all the same.
    if (!success && numFailedTests === 0) totals.failed += 1
  } catch (error) {
    console.error(`${title}: no result: ${error.message}`)
    totals.failed += 1
  }
}

/** What the tests use beside the product: the program, or the path of a file, and the package that has it. */
const programs = {
  vagrant: 'vagrant',
  '/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json': 'vagrant-libvirt',
  virsh: 'libvirt-clients',
  libvirtd: 'libvirt-daemon-system',
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  dnsmasq: 'dnsmasq-base',
  ssh: 'openssh-client',
  ss: 'iproute2',
  pgrep: 'procps',
  script: 'bsdutils',
}
const missing = Object.entries(programs).filter(
  ([program]) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0,
)
if (missing.length > 0) {
  const install = ['install', '--yes', '--no-install-recommends', ...new Set(missing.map(([, name]) => name))]
  if (process.getuid() === 0) {
    console.log(
      `The tests need ${missing.map(([program]) => program).join(', ')}: apt-get ${install.join(' ')}`,
    )
    run('host packages', 'sh', [
      '-c',
      `apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 ${install.join(' ')} >/dev/null`,
    ])
  } else {
    console.log(
      `Tests that need ${missing.map(([program]) => program).join(', ')} are left out: sudo apt-get ${install.join(' ')}`,
    )
  }
}

run('build', 'npm', ['run', '--silent', 'build'])
run('lint', 'npm', ['run', '--silent', 'lint'])
run('types', 'npx', ['tsc', '--noEmit'])
tests('unit tests')
const prepared = ['iscsi-ha', 'deployment'].map((lab) =>
  run(`parts of ${lab}`, process.execPath, ['dist/cli.js', 'prepare', lab]),
)
if (prepared.every(Boolean)) tests('labs on real machines', ['--config', 'vitest.e2e.config.ts'])
console.log('Left out: the course but for one experiment each of two of its labs: npm run test:course')
// It says itself what of the real Vagrant does not fit in here.
if (process.getuid() === 0)
  tests('the real VBoxManage', [], [process.execPath, 'test/vagrant/run.mjs', '--vboxmanage'])
else
  console.log(
    'Left out: the real VBoxManage, and labs on libvirt, which need root: sudo npm run test:vagrant',
  )

rmSync(folder, { recursive: true, force: true })
console.log('\nTime spent')
for (const { title, seconds, good: passed } of spent)
  console.log(`  ${passed ? '✔' : '✖'} ${title.padEnd(24)} ${seconds.toFixed(0).padStart(5)} s`)
console.log(
  `  = ${''.padEnd(24)} ${spent
    .reduce((sum, { seconds }) => sum + seconds, 0)
    .toFixed(0)
    .padStart(5)} s`,
)
console.log(`${totals.passed} passed, ${totals.failed} failed`)
process.exit(good && totals.failed === 0 && totals.passed > 0 ? 0 : 1)
