/** The memory controller of a Raspberry Pi: found, switched on in cmdline.txt by a restart, and given back by another. */
import { chmodSync, statSync } from 'node:fs'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { memoryFix, withMemory } from '../../../src/provider/hosts/boot-line.js'
import { switchOnMemory } from '../../../src/provider/hosts/memory-controller.js'
import { restartHost } from '../../../src/provider/hosts/restart.js'
import { undoRecord } from '../../../src/provider/hosts/undo.js'
import { Recorder, readRecord } from '../../../src/provider/hosts/undo-record.js'
import { temporaryFolder } from '../../helpers/folder.js'
import { StandIn } from './stand-in.js'

// Each asks a host for everything about itself, several times.
vi.setConfig({ testTimeout: 120_000 })

const line =
  'console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait'

describe('cmdline.txt with the memory controller', () => {
  test.each([
    ['a line', `${line}\n`, `${line} cgroup_enable=memory cgroup_memory=1\n`],
    ['a line without an end', line, `${line} cgroup_enable=memory cgroup_memory=1\n`],
    ['a line of Windows', `${line}\r\n`, `${line} cgroup_enable=memory cgroup_memory=1\n`],
    [
      'a line that has it',
      `root=x cgroup_memory=1 cgroup_enable=memory\n`,
      'root=x cgroup_enable=memory cgroup_memory=1\n',
    ],
    [
      'a line that switches it off',
      'root=x cgroup_disable=memory quiet\n',
      'root=x quiet cgroup_enable=memory cgroup_memory=1\n',
    ],
    [
      'other words about cgroups',
      'root=x cgroup_enable=cpuset cgroup_memory=0\n',
      'root=x cgroup_enable=cpuset cgroup_enable=memory cgroup_memory=1\n',
    ],
    [
      'lines that the firmware does not read',
      `root=x\n# before: root=y\n`,
      'root=x cgroup_enable=memory cgroup_memory=1\n# before: root=y\n',
    ],
  ])('cmdline.txt with the memory controller is made of %s', (_, before, after) => {
    expect(withMemory(Buffer.from(before)).toString()).toBe(after)
    expect(withMemory(Buffer.from(after)).toString()).toBe(after)
  })
})

describe('a host without a memory controller', () => {
  const pi = {
    ...{ controllers: ['cpu', 'pids'], kernel: '6.12.47+rpt-rpi-v8' },
    ...{
      bootFile: '/boot/firmware/cmdline.txt',
      bootLine: line,
      bootWords: ['cgroup_disable=memory', 'root=x'],
    },
  }
  test.each<[string, Partial<Parameters<typeof memoryFix>[0]>, RegExp]>([
    ['Raspberry Pi OS', {}, /^lab \/boot\/firmware\/cmdline\.txt$/],
    [
      'Raspberry Pi OS of before Debian 12',
      { kernel: '6.1.21-v8+', bootFile: '/boot/cmdline.txt' },
      /^lab \/boot\/cmdline\.txt$/,
    ],
    ['Ubuntu on a Raspberry Pi', { kernel: '6.8.0-1013-raspi' }, /^lab /],
    [
      'a line that itself switches it off, with any kernel',
      { kernel: '6.12.48+deb13-arm64', bootLine: 'root=x cgroup_disable=memory' },
      /^lab /,
    ],
    [
      'Debian’s kernel, and the firmware switches it off',
      { kernel: '6.12.48+deb13-arm64' },
      /^owner .*ignores cgroup_enable=memory/,
    ],
    [
      'a kernel that was told to, in vain',
      { bootWords: ['cgroup_disable=memory', 'cgroup_enable=memory'] },
      /^owner .*ignores/,
    ],
    [
      'a PC whose GRUB switches it off',
      { kernel: '6.12.48+deb13-amd64', bootFile: '', bootLine: '' },
      /^owner .*GRUB_CMDLINE_LINUX/,
    ],
    [
      'a kernel that was built without it',
      { kernel: '6.12.48', bootFile: '', bootLine: '', bootWords: [] },
      /^owner .*built without it/,
    ],
    ['cgroup v1', { controllers: [] }, /^owner no cgroup v2 .*unified_cgroup_hierarchy/],
    ['a memory controller after all', { controllers: ['cpu', 'memory'] }, /^none$/],
  ])('a host without a memory controller is helped by the right one: %s', (_, more, who) => {
    const fix = memoryFix({ ...pi, ...more })
    expect(
      fix === undefined ? 'none' : fix.by === 'lab' ? `lab ${fix.file}` : `owner ${fix.why} ${fix.fix}`,
    ).toMatch(who)
  })
})

describe('a Raspberry Pi', () => {
  let host: StandIn
  const file = '/boot/firmware/cmdline.txt'
  /** What its firmware and its kernel make of the file at the next boot. */
  const boots = `line=$(head -n 1 $ROOT${file}); n=$(cat $ROOT/number); echo $((n + 1)) > $ROOT/number; echo "boot $n" > $ROOT/proc/sys/kernel/random/boot_id
echo "cgroup_disable=memory $line" > $ROOT/proc/cmdline
case " $line " in *' cgroup_enable=memory '*) echo 'cpu memory pids' ;; *) echo 'cpu pids' ;; esac > $ROOT/sys/fs/cgroup/cgroup.controllers`

  beforeEach(async () => {
    host = new StandIn(await temporaryFolder(), [
      '/boot/firmware/',
      '/boot/cmdline.txt',
      '/proc/cmdline',
      '/proc/sys/kernel/random/boot_id',
      '/sys/fs/cgroup/cgroup.controllers',
    ])
    host.write(file, `${line}\n`)
    // What Debian 12 leaves at the old place.
    host.write(
      '/boot/cmdline.txt',
      'DO NOT EDIT THIS FILE\nThe file you are looking for has moved to /boot/firmware/cmdline.txt\n',
    )
    host.write('/number', '1')
    for (const name of [
      '/proc/cmdline',
      '/proc/sys/kernel/random/boot_id',
      '/sys/fs/cgroup/cgroup.controllers',
    ])
      host.write(name, '')
    host.program('uname', '[ "$1" = -m ] && echo aarch64 || echo 6.12.47+rpt-rpi-v8')
    host.program('sleep', 'exit 0')
    host.program('boot', boots)
    host.program('systemctl', `[ "$1" = reboot ] || exit 3; echo reboot >> $ROOT/did; exec $ROOT/bin/boot`)
    await host.exec('PATH=/usr/local/sbin:$PATH; boot')
  })

  const quick = { pause: 0.02, within: 10 }
  const reboots = (): number => host.read('/did').split('\n').filter(Boolean).length
  const notes: string[] = []
  const note = (text: string): void => void notes.push(text)

  test('a Raspberry Pi is restarted once for its memory controller, and once when it is given back, with the file as it was', async () => {
    await switchOnMemory(host, await Recorder.open(host), note, quick)
    expect(host.read(file)).toBe(`${line} cgroup_enable=memory cgroup_memory=1\n`)
    expect(reboots()).toBe(1)
    expect(notes.join()).toContain('restarting it: /boot/firmware/cmdline.txt has cgroup_enable=memory now')
    await switchOnMemory(host, await Recorder.open(host), note, quick)
    expect(reboots()).toBe(1)
    await undoRecord(host, note, quick)
    expect(host.read(file)).toBe(`${line}\n`)
    expect(reboots()).toBe(2)
    expect(host.read('/sys/fs/cgroup/cgroup.controllers')).toBe('cpu pids\n')
    expect(await readRecord(host)).toEqual([])
  })

  test.each<[string, Buffer]>([
    ['no newline at its end', Buffer.from(line)],
    ['lines of Windows', Buffer.from(`${line}\r\n# mine\r\n`)],
    ['several newlines at its end', Buffer.from(`${line}\n\n\n`)],
    ['a word in UTF-8 with the byte of a space', Buffer.from(`${line} name=à\n`)],
    ['bytes that are no UTF-8', Buffer.from(`${line} name=M\xfcller\n# \xff\xfe\n`, 'latin1')],
  ])('a Raspberry Pi gets back byte for byte a cmdline.txt with %s', async (_, before) => {
    host.write(file, before)
    chmodSync(host.at(file), 0o640)
    await switchOnMemory(host, await Recorder.open(host), note, quick)
    const edited = host.bytes(file)
    expect(edited.toString('latin1').split('\n')[0]).toMatch(/ cgroup_enable=memory cgroup_memory=1$/)
    // All that was not about memory is still there: the words of the line, and the lines after it.
    for (const [index, part] of before
      .toString('latin1')
      .split(/[ \r\n]+/)
      .entries())
      expect(edited.toString('latin1').split(/[ \r\n]+/), String(index)).toContain(part)
    await undoRecord(host, note, quick)
    expect(host.bytes(file).toString('hex')).toBe(before.toString('hex'))
    expect(statSync(host.at(file)).mode & 0o777).toBe(0o640)
  })

  test('a Raspberry Pi has its line in the record before it is edited, and is restarted by the next up if the first was killed', async () => {
    const killed: StandIn['exec'] = (command, options) =>
      command.includes('systemctl reboot') ? Promise.reject(new Error('killed')) : host.exec(command, options)
    const dying = { address: 'host', exec: killed, close: () => Promise.resolve() }
    await expect(switchOnMemory(dying, await Recorder.open(dying), note, quick)).rejects.toThrow('killed')
    expect(host.read(file)).toContain('cgroup_enable=memory')
    expect(await readRecord(host)).toMatchObject([
      { before: { kind: 'boot-line', file, base64: Buffer.from(`${line}\n`).toString('base64') } },
    ])
    expect(reboots()).toBe(0)
    await switchOnMemory(host, await Recorder.open(host), note, quick)
    expect(reboots()).toBe(1)
  })

  test('a Raspberry Pi is not restarted to be given back, if it was not restarted before', async () => {
    await (await Recorder.open(host)).bootLine(file)
    await undoRecord(host, note, quick)
    expect([reboots(), host.read(file)]).toEqual([0, `${line}\n`])
  })

  test('a Raspberry Pi keeps its line where only the owner can help', async () => {
    host.program('uname', '[ "$1" = -m ] && echo aarch64 || echo 6.12.48+deb13-arm64')
    await expect(switchOnMemory(host, await Recorder.open(host), note, quick)).rejects.toMatchObject({
      code: 'no-memory-controller',
      message: expect.stringContaining('ignores cgroup_enable=memory') as string,
    })
    expect([reboots(), host.read(file), await readRecord(host)]).toEqual([0, `${line}\n`, []])
  })

  test('a restarted host that does not come back is reported', async () => {
    host.program('systemctl', 'exit 0')
    await expect(restartHost(host, 'a test', note, { pause: 0.02, within: 0.2 })).rejects.toMatchObject({
      code: 'host-away',
    })
  })
})
