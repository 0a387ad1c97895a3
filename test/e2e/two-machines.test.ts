/**
 * What a lab of two machines goes through without being broken on purpose: its terminal is closed, its host sleeps, a
 * program on it fails and prints its arguments, a console never stops printing.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { execa } from 'execa'
import { Bench, cli } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

const on = (machine: string, script: string): Promise<string> =>
  bench.ok('exec', 'two', machine, '--', 'sh', '-c', script)

/** Characters that have a meaning in a shell, a regular expression, YAML, JSON, a URL or printf. */
const secrets = [
  `it's "quoted" $HOME \`id\` \\ #1`,
  'ünï-コード 100%41 $&',
  '.*[a-z]+(x|y)^$ {{b}}',
  'k=v&&p:q@h/7 --%s%n!',
]
const [username = '', password = '', mutualName = '', mutualPassword = ''] = secrets

/** The forms in which a secret could appear: as it is, in JSON, quoted for a shell, in a URL, in base64. */
const forms = (secret: string): readonly string[] => [
  secret,
  JSON.stringify(secret).slice(1, -1),
  `'${secret.replaceAll("'", `'\\''`)}'`,
  encodeURIComponent(secret),
  Buffer.from(secret).toString('base64'),
]
const shownIn = (text: string): readonly string[] =>
  secrets.flatMap(forms).filter((form) => text.includes(form))

let file = ''
beforeAll(async () => {
  file = await bench.variant('iscsi', 'two', (lab) => {
    const { iscsi } = lab as unknown as { iscsi: { targets: readonly { chap: unknown; luns: unknown }[] } }
    for (const target of iscsi.targets) {
      target.chap = { username, password, mutual: { username: mutualName, password: mutualPassword } }
      target.luns = [{ lun: 0, size: '128MiB' }]
    }
  })
})

describe('a terminal that is closed', () => {
  /** Whether a process handles SIGHUP; Node itself ends at once. */
  const minds = async (pid: number): Promise<boolean> => {
    const [, caught = '0'] =
      /^SigCgt:\s*([0-9a-f]+)/m.exec(await readFile(`/proc/${String(pid)}/status`, 'utf8')) ?? []
    return (BigInt(`0x${caught}`) & 1n) === 1n
  }

  /** Sends SIGHUP, as the kernel does when a terminal disappears, this many milliseconds after lab has started. */
  const hungUp = async (after: number, ...words: readonly string[]) => {
    const child = execa(process.execPath, [cli, ...words], {
      env: bench.env,
      reject: false,
      stdin: 'ignore',
      cwd: bench.folder,
    })
    const { pid = 0 } = child
    await expect.poll(() => minds(pid), { timeout: 30_000, interval: 10 }).toBe(true)
    await delay(after)
    child.kill('SIGHUP')
    return child
  }

  it('lab up exits with 130 and a message at any moment, and the next lab up continues from there', async () => {
    for (const after of [0, 2000, 5000]) {
      const { exitCode, stderr } = await hungUp(after, 'up', file)
      // A quick host may be done by then.
      if (exitCode !== 0) {
        expect(stderr).toContain('interrupted')
        expect(exitCode).toBe(130)
      }
    }
    await bench.up(file)
    expect(await bench.complaints('two')).toEqual([])
  })

  it('lab prepare can be interrupted when everything is prepared, and everything stays prepared', async () => {
    const { exitCode } = await hungUp(0, 'prepare', file)
    expect([0, 130]).toContain(exitCode)
    expect(await bench.ok('prepare', file)).not.toMatch(/build/i)
  })

  it('lab down can be interrupted, and the next lab down removes what is left', async () => {
    const { exitCode } = await hungUp(300, 'down', 'two')
    expect([0, 130]).toContain(exitCode)
    // By its file: a quick host may have removed the lab and its name by then.
    expect(await bench.ok('down', file)).toMatch(/nothing left/)
    await expect(execa('pgrep', ['-f', join(bench.env.LAB_STATE, 'two')])).rejects.toThrow()
  })
})

describe('secrets of every sort', () => {
  beforeAll(async () => {
    await bench.up(file)
  })

  it('up, verify, plan and logs mask secrets when a failing program prints everything it was given', async () => {
    // Like a tool that quotes the line of its configuration that it cannot parse.
    await on(
      'initiator',
      `umount /mnt/*; iscsiadm -m node --logout; cp -a /usr/sbin/iscsiadm /root/iscsiadm
       printf '%s\\n' '#!/bin/sh' 'cat /etc/iscsi/iscsid.conf $(find /var/lib/iscsi /etc/iscsi -type f) >&2; cat >&2; exit 7' > /usr/sbin/iscsiadm`,
    )
    for (const words of [
      ['up', 'two'],
      ['up', 'two', '--events'],
      ['verify', 'two'],
      ['verify', 'two', '-o', 'json'],
      ['plan', file],
      ['status', 'two', '-o', 'json'],
      ['logs', 'two', 'target'],
      ['logs', 'two', 'initiator'],
    ]) {
      const { stdout, stderr, exitCode } = await bench.lab(...words)
      const printed = `${stdout}\n${stderr}`
      expect(shownIn(printed), words.join(' ')).toEqual([])
      // The secrets would be in there: the program's output is the evidence.
      if (words[0] === 'up' || words[0] === 'verify') {
        expect(printed, words.join(' ')).toContain('***')
        expect(exitCode).toBe(1)
      }
    }
    await on('initiator', 'cp -a /root/iscsiadm /usr/sbin/iscsiadm')
    await bench.up('two')
    expect(await bench.complaints('two')).toEqual([])
  })

  it('no file of the lab that contains a secret is readable by other users', async () => {
    const folder = join(bench.env.LAB_STATE, 'two')
    const readable: string[] = []
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name)
      if (!entry.isFile() || /\.(cow|raw)$/.test(entry.name)) continue
      const found = shownIn(await readFile(path, 'utf8'))
      if (found.length > 0 && ((await stat(path)).mode & 0o077) !== 0) readable.push(path)
    }
    expect(readable).toEqual([])
  })
})

describe('a lab that lives long', () => {
  it('lab up corrects the clocks after the host slept for an hour, and changes nothing else', async () => {
    // A machine follows a clock of the host that stands still while the host sleeps.
    await on('all', "date -s '-1 hour'")
    expect(await bench.complaints('two')).toEqual(['target-clock', 'initiator-clock'])
    expect(await bench.up('two')).toEqual(['reach-target', 'reach-initiator'])
    expect(await bench.complaints('two')).toEqual([])
  })

  it('the supervisor keeps the last 8 MiB of what a machine prints on its console', async () => {
    await on(
      'initiator',
      `head -c 12M /dev/zero | tr '\\0' x | fold -w 100 > /dev/console; echo the last line > /dev/console`,
    )
    const folder = join(bench.env.LAB_STATE, 'two', 'machines', 'initiator')
    const logs = (await readdir(folder)).filter((name) => name.startsWith('console.log'))
    const sizes = await Promise.all(logs.map(async (name) => (await stat(join(folder, name))).size))
    expect(sizes.reduce((all, each) => all + each, 0)).toBeLessThanOrEqual(8.1 * 1024 ** 2)
    expect(await bench.ok('logs', 'two', 'initiator')).toContain('the last line')
  })
})
