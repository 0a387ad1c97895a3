#!/usr/bin/env node
/**
 * Everything that `npm test` means, in order, with what each part took: what the tests need of this host,
 * lint and types, unit tests, the parts that machines are made of, labs on real machines, and the real VBoxManage.
 * Labs on libvirt, and the whole course, take longer: `npm run test:vagrant`, `npm run test:course`.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folder = mkdtempSync(join(tmpdir(), 'lab-test-'))
const spent = []
const totals = { passed: 0, failed: 0 }
let good = true

/** @param held its output is printed when it is done: it runs beside another */
const run = async (title, command, args, { held = false } = {}) => {
  console.log(`\n=== ${title}: ${[command, ...args].join(' ')}`)
  const begun = performance.now()
  const output = held ? 'pipe' : 'inherit'
  const child = spawn(command, args, { stdio: ['ignore', output, output] })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (printed += chunk))
  const status = await new Promise((resolve) => {
    child.once('error', (error) => {
      printed += `${error.message}\n`
      resolve(1)
    })
    child.once('close', (code) => resolve(code ?? 1))
  })
  if (printed) console.log(`\n=== ${title}, now done, has printed:\n${printed}`)
  spent.push({ title, seconds: (performance.now() - begun) / 1000, good: status === 0 })
  if (status !== 0) good = false
  return status === 0
}

/** @param runner what starts vitest, with its first words */
const tests = async (title, args = [], { runner = ['npx', 'vitest', 'run'], held = false } = {}) => {
  const file = join(folder, `${title}.json`)
  const [command, ...words] = runner
  const reported = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
  await run(title, command, [...words, ...reported, ...args], { held })
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
    await run('host packages', 'sh', [
      '-c',
      `apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 ${install.join(' ')} >/dev/null`,
    ])
  } else {
    console.log(
      `Tests that need ${missing.map(([program]) => program).join(', ')} are left out: sudo apt-get ${install.join(' ')}`,
    )
  }
}

await run('build', 'npm', ['run', '--silent', 'build'])
await Promise.all([
  run('lint', 'npm', ['run', '--silent', 'lint']),
  run('types', 'npx', ['tsc', '--noEmit'], { held: true }),
])
await tests('unit tests')
const prepare = (lab, options) =>
  run(`parts of ${lab}`, process.execPath, ['dist/cli.js', 'prepare', lab], options)
const labs = (title, files) =>
  tests(title, ['--config', 'vitest.e2e.config.ts', ...files.map((file) => join('test', 'e2e', file))])
const vboxmanage = () =>
  tests('the real VBoxManage', [], {
    // It says itself what of the real Vagrant does not fit in here.
    runner: [process.execPath, 'test/vagrant/run.mjs', '--vboxmanage'],
    held: true,
  })
if (await prepare('iscsi-ha')) {
  // Labs without Kubernetes leave a processor to others.
  const light = ['iscsi.test.ts', 'provider.test.ts', 'registry.test.ts']
  const others = readdirSync(join(import.meta.dirname, 'e2e')).filter(
    (file) => file.endsWith('.test.ts') && !light.includes(file),
  )
  const beside = async () => {
    const prepared = await prepare('deployment', { held: true })
    if (process.getuid() === 0) await vboxmanage()
    return prepared
  }
  const [, prepared] = await Promise.all([labs('light labs on real machines', light), beside()])
  if (prepared) await labs('labs on real machines', others)
} else if (process.getuid() === 0) await vboxmanage()
console.log('Left out: the course but for one experiment each of two of its labs: npm run test:course')
if (process.getuid() !== 0)
  console.log(
    'Left out: the real VBoxManage, and labs on libvirt, which need root: sudo npm run test:vagrant',
  )

rmSync(folder, { recursive: true, force: true })
console.log('\nTime spent')
for (const { title, seconds, good: passed } of spent)
  console.log(`  ${passed ? '✔' : '✖'} ${title.padEnd(24)} ${seconds.toFixed(0).padStart(5)} s`)
console.log(`  = ${''.padEnd(24)} ${(performance.now() / 1000).toFixed(0).padStart(5)} s`)
console.log(`${totals.passed} passed, ${totals.failed} failed`)
process.exit(good && totals.failed === 0 && totals.passed > 0 ? 0 : 1)
