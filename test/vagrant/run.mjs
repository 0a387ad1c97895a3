#!/usr/bin/env node
/**
 * `npm run test:vagrant`: the providers of virtual machines, with the real Vagrant, libvirtd and VBoxManage, in
 * namespaces in which nothing of the host can be disturbed. Machines are emulated, so it takes hours.
 * With --short only what fits into CI: VBoxManage, and lab iscsi on libvirt.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

const short = process.argv.includes('--short')
const rest = process.argv.slice(2).filter((word) => word !== '--short')
const here = import.meta.dirname

const run = (command, args, env = {}) => {
  const { status } = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  })
  return status ?? 1
}

if (process.getuid() !== 0) {
  console.log('Left out: it needs root, for a libvirtd of its own. sudo npm run test:vagrant')
  process.exit(short ? 0 : 1)
}
const programs = ['vagrant', 'virsh', 'libvirtd', 'qemu-system-x86_64', 'mmdebstrap']
const missing = programs.filter((program) => run('sh', ['-c', `command -v ${program} > /dev/null`]) !== 0)
if (missing.length > 0) {
  console.error(
    `Not there: ${missing.join(', ')}: apt-get install -y --no-install-recommends vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils dnsmasq-base mmdebstrap`,
  )
  process.exit(1)
}

const cli = join(here, '..', '..', 'dist', 'cli.js')
for (const provider of short ? ['libvirt'] : ['libvirt', 'virtualbox'])
  if (run(process.execPath, [cli, 'box', 'build', '--provider', provider]) !== 0) process.exit(1)

// Not in /tmp, which libvirt-world.sh leaves alone, but which may be small.
const folder = mkdtempSync(join('/var/tmp', 'lab-vagrant-'))
const status = run(
  join(here, 'virtualbox-world.sh'),
  [
    join(folder, 'virtualbox'),
    ...[join(here, 'libvirt-world.sh'), join(folder, 'libvirt')],
    ...['npx', 'vitest', 'run', '--config', 'vitest.vagrant.config.ts', ...rest],
  ],
  {
    LAB_TEST_LONG: short ? '0' : '1',
    LAB_STATE: join(folder, 'virtualbox', 'state'),
    VAGRANT_HOME: join(folder, 'virtualbox', 'vagrant'),
  },
)
rmSync(folder, { recursive: true, force: true })
if (short)
  console.log(
    'Left out, for time: lab iscsi-ha on libvirt, and the contract of the providers libvirt and virtualbox on emulated machines: npm run test:vagrant',
  )
process.exit(status)
