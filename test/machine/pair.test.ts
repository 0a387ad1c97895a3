/** The files of two machines that serve one target, and what their scripts do. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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
  it('the files of a pair are the same on both machines, except for the names of the two', () => {
    const different = filesOf('target1')
      .filter(({ path, content }) => file('target2', path) !== content)
      .map(({ path }) => path)
    expect(different).toEqual([
      '/etc/hostname',
      '/etc/lab/pair/fence-peer',
      '/etc/lab/pair/unfence-peer',
      '/etc/lab/boot.d/50-pair',
    ])
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

  it('the files of a pair let DRBD copy at least 20 MiB per second while the database writes', () => {
    const drbd = file('target1', '/etc/drbd.d/lab.res')
    const [, number, unit] = /^ +c-min-rate (\d+)([kMG]);$/m.exec(drbd) ?? []
    expect([Number(number) >= 20, unit]).toEqual([true, 'M'])
    // With the default, 50 KiB on their way to the other machine, the rate has a limit as well.
    expect(drbd).toMatch(/^ +c-fill-target 1M;$/m)
  })

  it('the initiators of a pair ask after a second of silence whether it is still there, and those of one machine after five', async () => {
    const interval = async (name: string): Promise<string | undefined> => {
      const other = await loadLab(name)
      const worker = other.machines.find(({ role }) => role === 'worker' || role === 'initiator')!
      const files = machineFiles(other, worker, {
        secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
        lunDevice: () => '/dev/ubdc',
      })
      const settings = files.find(({ path }) => path === '/etc/iscsi/iscsid.conf')?.content ?? ''
      return /noop_out_interval = (\d+)\n(?:.*\n)*?.*noop_out_timeout = 5\n/.exec(settings)?.[1]
    }
    expect(await Promise.all(['hacmp', 'iscsi-pair', 'iscsi-ha'].map(interval))).toEqual(['1', '1', '5'])
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

/** Stand-ins for the real programs, which a script of a pair finds first. */
const withPrograms = (
  script: string,
  programs: Readonly<Record<string, string>>,
  { input, drbd = '' }: { readonly input?: string; readonly drbd?: string } = {},
): { readonly status: number | null; readonly called: readonly string[] } => {
  const place = mkdtempSync(join(folder, 'run-'))
  const log = join(place, 'called')
  for (const [name, text] of Object.entries(programs))
    writeFileSync(join(place, name), `#!/bin/sh\necho "${name} $*" >> ${log}\n${text}\n`, { mode: 0o755 })
  writeFileSync(join(place, 'drbd'), drbd)
  const text = file('target1', `/etc/lab/pair/${script}`)
  const { status } = spawnSync(
    'sh',
    ['-c', text.replaceAll('/run/', `${place}/`).replaceAll('/proc/drbd', `${place}/drbd`)],
    {
      env: { PATH: `${place}:${process.env['PATH'] ?? ''}`, PLACE: place },
      // The kernel calls with no file open.
      ...(input === undefined ? { stdio: ['ignore', 'ignore', 'ignore'] } : { input }),
    },
  )
  return { status, called: existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [] }
}

/** A line of /proc/drbd. */
const copy = (connection: string, disks = 'UpToDate/DUnknown', number = 0): string =>
  ` ${String(number)}: cs:${connection} ro:Secondary/Unknown ds:${disks} C r-----`

const mark =
  'cibadmin --create --scope=constraints --xml-text <rsc_location id="outdated-target2" rsc="copies" role="Promoted" node="target2" score="-INFINITY"/>'
const unmark = 'cibadmin --delete --xml-text <rsc_location id="outdated-target2"/>'
const changes = (called: readonly string[]): readonly string[] =>
  called.filter((each) => each.startsWith('cibadmin --create') || each.startsWith('cibadmin --delete'))

describe('what DRBD is told of the other machine', () => {
  /** @param answers whether target2 answers to each question of its state; the last one is repeated */
  const fencePeer = ({
    member = false,
    quorate = true as boolean | 'later',
    fenced = true,
    answers = [false],
    marked = [] as readonly string[],
    marks = true,
  }) => {
    const programs = {
      'corosync-quorumtool': `[ "$1" = -l ] && { echo '1 1 target1 (local)'; ${member ? "echo '2 1 target2'" : ':'}; exit; }
${quorate === 'later' ? '[ $(grep -c ^sleep "$PLACE"/called) -ge 3 ] || exit' : ''}
echo 'Quorate:          ${quorate === false ? 'No' : 'Yes'}'`,
      crmadmin: `n=$(grep -c ^crmadmin "$PLACE"/called)
set -- ${answers.map((each) => (each ? '0' : '1')).join(' ')}
[ "$n" -le $# ] || n=$#
shift $((n - 1))
exit "$1"`,
      cibadmin: `case "$*" in
${marked.map((name) => `  *"--query"*"'outdated-${name}'"*) exit 0 ;;`).join('\n')}
  --query*) exit 105 ;;
  --create*) exit ${marks ? '0' : '1'} ;;
esac`,
      stonith_admin: `exit ${fenced ? '0' : '1'}`,
      // The other machine is back after a while if nothing else happens.
      sleep: `[ $(grep -c ^sleep "$PLACE"/called) -lt 20 ] || echo '${copy('Connected')}' > "$PLACE"/drbd`,
      // The seconds of /proc/uptime: every look at the clock takes one.
      cut: 'grep -c ^cut "$PLACE"/called',
    }
    const { status, called } = withPrograms('fence-peer', programs, { drbd: copy('WFConnection') })
    return {
      status,
      changes: changes(called),
      fences: called.some((each) => each.startsWith('stonith_admin')),
    }
  }

  it('DRBD is told that the other machine is off once its power switch says so', () => {
    expect(fencePeer({})).toEqual({ status: 7, changes: [], fences: true })
  })

  it('DRBD is told that the other copy is outdated when the other machine knows it, and nobody is switched off', () => {
    expect(fencePeer({ member: true, answers: [true, true] })).toEqual({
      status: 4,
      changes: [mark],
      fences: false,
    })
  })

  it('DRBD is told that the other copy is outdated when it is marked already', () => {
    const { status, fences } = fencePeer({
      member: true,
      answers: [true],
      marked: ['target2'],
      marks: false,
    })
    expect({ status, fences }).toEqual({ status: 4, fences: false })
  })

  it('a copy is not marked while its machine does not answer, and that machine is switched off', () => {
    expect(fencePeer({ member: true, answers: [false] })).toEqual({ status: 7, changes: [], fences: true })
  })

  it('the mark of a copy is taken back if its machine may not have heard of it', () => {
    expect(fencePeer({ member: true, answers: [true, false] })).toEqual({
      status: 7,
      changes: [mark, unmark],
      fences: true,
    })
  })

  it('DRBD is told nothing on a machine whose own copy is outdated, so its writes wait', () => {
    expect(fencePeer({ member: true, answers: [true], marked: ['target1'] })).toEqual({
      status: 1,
      changes: [],
      fences: false,
    })
  })

  it('DRBD is told nothing without a quorum, so only one of two separated machines is switched off', () => {
    expect(fencePeer({ quorate: false })).toEqual({ status: 1, changes: [], fences: false })
    expect(fencePeer({ quorate: false, member: true, answers: [true] })).toEqual({
      status: 1,
      changes: [],
      fences: false,
    })
  })

  it('the other machine is switched off when the vote of the third machine is back, and the writes go on', () => {
    expect(fencePeer({ quorate: 'later' })).toEqual({ status: 7, changes: [], fences: true })
  })

  it('DRBD is told nothing if the power switch does not answer, so no machine writes', () => {
    expect(fencePeer({ fenced: false })).toEqual({ status: 1, changes: [], fences: true })
  })
})

describe('the mark of an outdated copy', () => {
  const unfence = ({ marked = true, drbd = copy('Connected', 'UpToDate/UpToDate') }) =>
    changes(
      withPrograms(
        'unfence-peer',
        { cibadmin: marked ? ':' : 'case $1 in --query) exit 105 ;; esac' },
        { drbd: `version: 8.4.11\n${drbd}\n    ns:0 nr:0\n` },
      ).called,
    )

  it('the mark of an outdated copy is removed when both copies are up to date', () => {
    expect(unfence({})).toEqual([unmark])
  })

  it.each([
    ['the copies are not connected', { drbd: copy('WFConnection') }],
    ['the copy still catches up', { drbd: copy('SyncSource', 'UpToDate/Inconsistent') }],
    [
      'only one of two volumes is up to date',
      {
        drbd: `${copy('Connected', 'UpToDate/UpToDate')}\n${copy('Connected', 'UpToDate/Inconsistent', 1)}`,
      },
    ],
    ['DRBD is down', { drbd: '' }],
    ['there is none', { marked: false }],
  ])('no mark of an outdated copy is removed when %s', (_, state) => {
    expect(unfence(state)).toEqual([])
  })

  it('the mark of an outdated copy outlives a new configuration of Pacemaker', () => {
    const outdated =
      '<rsc_location id="outdated-target2" rsc="copies" role="Promoted" node="target2" score="-INFINITY"/>'
    const replaced = (has: string): string => {
      const into = join(mkdtempSync(join(folder, 'replaced-')), 'configuration')
      const { status } = withPrograms(
        'configure',
        { cibadmin: `case $1 in --query) echo '${has}' ;; *) cat > ${into} ;; esac` },
        { input: '<configuration><constraints>\n<rsc_order id="wanted"/></constraints></configuration>\n' },
      )
      expect(status).toBe(0)
      return readFileSync(into, 'utf8')
    }
    expect(
      replaced(`<constraints>\n  ${outdated}\n  <rsc_location id="cli-ban" node="target1"/>\n</constraints>`),
    ).toContain(`<constraints>${outdated}\n<rsc_order id="wanted"/></constraints>`)
    expect(replaced('<constraints/>')).toContain('<constraints>\n<rsc_order id="wanted"/></constraints>')
  })
})
