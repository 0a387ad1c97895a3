/**
 * Which initiators a target admits, by the very scripts that run on a target machine. The kernel's configfs is
 * replaced by a tmpfs in a mount namespace: the test is which access lists exist afterwards. It needs root;
 * test/e2e/faults.test.ts does the same on real machines.
 */
import { execa } from 'execa'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { letIn, throwOutCommand } from '../../src/fencing/access.js'
import { loadLab } from '../../src/registry.js'
import { machineNamed } from '../../src/lab/lab.js'
import { machineFiles } from '../../src/machine/files.js'

const lab = await loadLab('iscsi-ha')
const script = machineFiles(lab, machineNamed(lab, 'target'), {
  secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
  lunDevice: () => '/dev/null',
  slowdown: 1,
}).find(({ path }) => path.endsWith('50-target'))
const worker1 = machineNamed(lab, 'worker1').iqn ?? ''
const worker2 = machineNamed(lab, 'worker2').iqn ?? ''

/** A reboot: configfs is empty again, and the disk is unchanged. */
const reboot = 'umount /sys/kernel/config; mount -t tmpfs none /sys/kernel/config; /etc/lab/boot.d/50-target'
const lists = `ls /sys/kernel/config/target/iscsi/*/tpgt_1/acls`

/** Runs shell commands on the stand-in for a target machine. @returns the access lists afterwards */
const onTarget = async (...lines: readonly string[]): Promise<readonly string[]> => {
  const prelude = [
    'set -e',
    'mount -t tmpfs none /sys/kernel; mkdir /sys/kernel/config; mount -t tmpfs none /sys/kernel/config',
    'mkdir -p /var/lib/lab; mount -t tmpfs none /var/lib/lab',
    'mount -t tmpfs none /etc; mkdir -p /etc/lab/boot.d /etc/target',
    'printf %s "$SCRIPT" > /etc/lab/boot.d/50-target; chmod +x /etc/lab/boot.d/50-target',
    // configfs creates the attributes of a new folder, and removes them with it.
    'mount -t tmpfs none /run; mkdir /run/bin',
    `printf '%s\n' '#!/bin/sh' '/bin/mkdir "$@"' 'shift; for each in "$@"; do /bin/mkdir -p "$each"/attrib "$each"/auth "$each"/wwn "$each"/discovery_auth; done' > /run/bin/mkdir`,
    `printf '%s\n' '#!/bin/sh' 'exec rm -r "$@"' > /run/bin/rmdir`,
    'chmod +x /run/bin/*; export PATH=/run/bin:$PATH',
    '/etc/lab/boot.d/50-target',
  ]
  const { stdout } = await execa(
    'unshare',
    ['--mount', 'bash', '-c', [...prelude, ...lines, lists].join('\n')],
    {
      env: { SCRIPT: script?.content.toString() ?? '' },
    },
  )
  return stdout.split('\n').sort()
}

describe.skipIf(process.getuid?.() !== 0)('a target', () => {
  it('a target admits the initiators of its lab file', async () => {
    expect(await onTarget()).toEqual([worker1, worker2])
  })

  it('a target still refuses a fenced initiator after a reboot', async () => {
    const fence = throwOutCommand(worker1, 'one').text
    expect(await onTarget(`( ${fence} )`)).toEqual([worker2])
    expect(await onTarget(`( ${fence} )`, reboot)).toEqual([worker2])
  })

  it('a target still refuses a fenced initiator when its script runs again', async () => {
    expect(
      await onTarget(`( ${throwOutCommand(worker1, 'one').text} )`, '/etc/lab/boot.d/50-target'),
    ).toEqual([worker2])
  })

  it('a target admits an initiator again once its fence is undone, also after a reboot', async () => {
    const lines = [`( ${throwOutCommand(worker1, 'one').text} )`, `( ${letIn(worker1, 'one').text} )`]
    expect(await onTarget(...lines)).toEqual([worker1, worker2])
    expect(await onTarget(...lines, reboot)).toEqual([worker1, worker2])
  })

  it('a target refuses a fence that arrives after its undo', async () => {
    expect(
      await onTarget(
        `( ${letIn(worker1, 'one').text} )`,
        `code=0; ( ${throwOutCommand(worker1, 'one').text} ) || code=$?; test $code = 4`,
      ),
    ).toEqual([worker1, worker2])
  })

  it('a target keeps refusing an initiator when only an earlier fence of it is undone', async () => {
    expect(
      await onTarget(
        `( ${throwOutCommand(worker1, 'one').text} )`,
        `( ${throwOutCommand(worker1, 'two').text} )`,
        `( ${letIn(worker1, 'one').text} )`,
      ),
    ).toEqual([worker2])
  })
})

it('the names of the lock and the folder are defined in one place', async () => {
  const template = await readFile(join(import.meta.dirname, '../../templates/machine/target.sh.hbs'), 'utf8')
  const { text } = throwOutCommand(worker1, 'one')
  for (const name of [/exec 9>(\S+)/.exec(template)?.[1], /^fenced=(\S+)/m.exec(template)?.[1]]) {
    expect(name).toBeDefined()
    expect(text).toContain(name)
  }
})
