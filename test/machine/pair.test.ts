/** The files of two machines that serve one target, and what their scripts do. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { diskSizeOf, machineNamed, pairsOf } from '../../src/lab/lab.js'
import { machineFiles } from '../../src/machine/files.js'
import type { MachineFile } from '../../src/machine/machine-file.js'
import { loadLab } from '../../src/registry.js'

const lab = await loadLab('iscsi-pair')
const pair = pairsOf(lab)[0]!

const filesOf = (machine: string, clusterKey = 'key-of-clusters'): readonly MachineFile[] =>
  machineFiles(lab, machineNamed(lab, machine), {
    secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey },
    lunDevice: (index) => `/dev/ubd${'cdefgh'.charAt(index)}`,
  })

const file = (machine: string, path: string, clusterKey?: string): string =>
  filesOf(machine, clusterKey).find((each) => each.path === path)?.content ?? ''

const folder = mkdtempSync(join(tmpdir(), 'lab-pair-'))
afterAll(() => {
  rmSync(folder, { recursive: true })
})

describe('the files of a pair', () => {
  it('the files of a pair are the same on both machines, except for the name of the other machine', () => {
    const different = filesOf('target1')
      .filter(({ path, content }) => file('target2', path) !== content)
      .map(({ path }) => path)
    expect(different).toEqual(['/etc/hostname', '/etc/lab/pair/fence-peer', '/etc/lab/boot.d/50-pair'])
  })

  it('the files of a pair start no target at boot, because Pacemaker starts it on one of the two machines', () => {
    expect(filesOf('target1').map(({ path }) => path)).not.toContain('/etc/lab/boot.d/50-target')
  })

  it('the files of a pair serve the mirrored disk, never the one below it', () => {
    const script = file('target1', '/etc/lab/pair/serve')
    expect(script).toContain("udev_path=/dev/drbd0'")
    expect(script).not.toContain('/dev/ubd')
  })

  it('the files of a pair leave DRBD room for its notes: the disk is larger than the LUN', () => {
    const [lun] = pair.luns
    const drbd = file('target1', '/etc/drbd.d/lab.res')
    expect(drbd).toContain(`size ${String(lun!.size / 512)}s;`)
    // drbd.conf(5): one bit for 4 KiB, and 36 KiB more.
    expect(diskSizeOf(pair, lun!) - lun!.size).toBeGreaterThan(lun!.size / 4096 / 8 + 36 * 1024)
  })

  it('the files of a pair have keys that belong to their lab alone and that other users cannot read', () => {
    for (const path of ['/etc/corosync/authkey', '/etc/drbd.d/lab.res']) {
      expect(file('target1', path)).not.toBe(file('target1', path, 'another'))
      expect((filesOf('target1').find((each) => each.path === path)?.mode ?? 0o644) & 0o077).toBe(0)
    }
    // Corosync requires at least 1024 bits.
    expect(file('target1', '/etc/corosync/authkey').length).toBeGreaterThanOrEqual(128)
  })

  it('the files of a pair count three votes, and wait for all of them at boot', () => {
    const corosync = file('target2', '/etc/corosync/corosync.conf')
    // Without expected_votes, Corosync counts the two machines only: one of them and the third would be all.
    expect(corosync).toContain('expected_votes: 3')
    expect(corosync).toContain('wait_for_all: 1')
  })

  it('the files of a pair start the voting service on the third machine only', () => {
    const votes = (machine: string): boolean =>
      filesOf(machine).some(({ path }) => path === '/etc/lab/boot.d/50-quorum')
    expect(['target1', 'target2', 'initiator'].map(votes)).toEqual([false, false, true])
  })

  it('the scripts of a pair can be parsed by a shell', () => {
    for (const { path, content } of filesOf('target1').filter((each) => each.content.startsWith('#!')))
      expect([path, spawnSync('sh', ['-n'], { input: content }).stderr.toString()]).toEqual([path, ''])
  })

  it('the files of a pair describe the resource agent to Pacemaker', () => {
    const agent = join(folder, 'target')
    writeFileSync(agent, file('target1', '/usr/lib/ocf/resource.d/lab/target'), { mode: 0o755 })
    expect(execFileSync(agent, ['meta-data']).toString()).toContain('<action name="monitor"')
  })
})

describe('what DRBD is told of the other machine', () => {
  /** Runs the handler with stand-ins for the real programs. */
  const fencePeer = ({ member = false, quorate = true, fenced = true }): number | null => {
    const program = (name: string, text: string): void => {
      writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
    }
    program(
      'corosync-quorumtool',
      `[ "$1" = -l ] && { echo '1 1 target1 (local)'; ${member ? "echo '2 1 target2'" : ':'}; exit; }
echo 'Quorate:          ${quorate ? 'Yes' : 'No'}'`,
    )
    program('stonith_admin', `echo "$@" >> ${folder}/fenced; exit ${fenced ? '0' : '1'}`)
    program('sleep', ':')
    const script = file('target1', '/etc/lab/pair/fence-peer').replace('/run/', `${folder}/`)
    return spawnSync('sh', ['-c', script], {
      env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` },
      // As the kernel calls it: with no file open.
      stdio: ['ignore', 'ignore', 'ignore'],
    }).status
  }

  it('DRBD is told that the other machine is off once its power switch says so', () => {
    expect(fencePeer({})).toBe(7)
  })

  it('DRBD is told that the other machine is off after only the replication was cut', () => {
    expect(fencePeer({ member: true })).toBe(7)
  })

  it('DRBD is told nothing without a quorum, so only one of two separated machines is switched off', () => {
    expect(fencePeer({ quorate: false })).toBe(1)
  })

  it('DRBD is told nothing if the power switch does not answer, so no machine writes', () => {
    expect(fencePeer({ fenced: false })).toBe(1)
  })
})
