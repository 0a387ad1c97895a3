#!/usr/bin/env node
/**
 * `npm run test:vagrant`: the providers of virtual machines, with the real Vagrant, libvirtd and VBoxManage, in
 * namespaces in which they cannot disturb the host. Machines are emulated, so it takes an hour.
 *   --short       VBoxManage, and lab iscsi on libvirt: seven minutes on two cores, and two more for the box
 *   --vboxmanage  VBoxManage alone: a minute, and another one the first time
 *   --bench       no tests: `lab` against Vagrant itself, for the same machines
 * All other words go to vitest, or to the benchmark.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { installing, missingOf } from '../host-programs.mjs'

const own = ['--short', '--vboxmanage', '--bench']
const [short, vboxmanage, bench] = own.map((word) => process.argv.includes(word))
const rest = process.argv.slice(2).filter((word) => !own.includes(word))
const whole = !short && !vboxmanage && !bench
const files = rest.filter((word) => word.includes('.test'))
// Its box takes twenty minutes, so it is left out if other test files are named.
const arm64 = whole && (files.length === 0 || files.some((file) => file.includes('arm64')))
const here = import.meta.dirname

const run = (command, args, env = {}) => {
  const { status } = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  })
  return status ?? 1
}

if (process.getuid() !== 0) {
  console.error('It needs root, for namespaces of its own: sudo npm run test:vagrant')
  process.exit(1)
}
const missing = missingOf([
  'vagrant',
  '/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json',
  'mmdebstrap',
  ...(vboxmanage ? [] : ['virsh', 'libvirtd', 'dnsmasq', 'qemu-img', 'qemu-system-x86_64']),
  ...(arm64 ? ['qemu-system-aarch64'] : []),
])
if (missing.length > 0) {
  console.error(`Not there: ${missing.join(', ')}: apt-get ${installing(missing).join(' ')}`)
  process.exit(1)
}

// Here, because the tests' namespaces have no internet.
const boxes = []
if (!vboxmanage) boxes.push(['--provider', 'libvirt'])
if (whole) boxes.push(['--provider', 'virtualbox'])
if (arm64) boxes.push(['--arch', 'arm64', '--provider', 'libvirt'])
const cli = join(here, '..', '..', 'dist', 'cli.js')
for (const words of boxes) if (run(process.execPath, [cli, 'box', 'build', ...words]) !== 0) process.exit(1)

// Not in /tmp, which libvirt-world.sh leaves alone, but which may be small.
const folder = mkdtempSync(join('/var/tmp', 'lab-vagrant-'))
const status = run(
  join(here, 'virtualbox-world.sh'),
  [
    join(folder, 'virtualbox'),
    ...(vboxmanage ? [] : [join(here, 'libvirt-world.sh'), join(folder, 'libvirt')]),
    ...(bench
      ? [process.execPath, join(here, '..', '..', 'bench', 'bench.mjs'), '--only', 'vagrant']
      : ['npx', 'vitest', 'run', '--project', 'vagrant']),
    ...(vboxmanage ? ['virtualbox.test'] : []),
    ...rest,
  ],
  {
    LAB_TEST_LONG: short || vboxmanage ? '0' : '1',
    LAB_STATE: join(folder, 'virtualbox', 'state'),
    VAGRANT_HOME: join(folder, 'virtualbox', 'vagrant'),
    // libvirt's user may not use a KVM that only this user may use.
    ...(bench ? { LAB_EMULATE: '1' } : {}),
  },
)
rmSync(folder, { recursive: true, force: true })
if (short && rest.length === 0)
  console.log(
    'Left out, for time: lab iscsi-ha on libvirt; a box for arm64; the contract of the providers libvirt and virtualbox on emulated machines: npm run test:vagrant',
  )
process.exit(status)
