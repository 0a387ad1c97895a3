/** What a build step that needs no rights may do: tried by a real process in a real sandbox. */
import { mkdir, readFile, readlink, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { runApart } from '../../src/parts/enter.js'
import { builderUser, runInSandbox } from '../../src/parts/sandbox.js'
import { temporaryFolder } from '../helpers/folder.js'

let folder = ''
beforeEach(async () => {
  folder = await temporaryFolder()
  await mkdir(join(folder, 'out'))
  await mkdir(join(folder, 'work'))
})

const run = async (script: string, network = false): Promise<string[]> => {
  const lines: string[] = []
  const build = {
    out: join(folder, 'out'),
    work: join(folder, 'work'),
    run: async (command: readonly string[], options: object = {}): Promise<void> => {
      const signal = new AbortController().signal
      const onLine = (line: string): void => void lines.push(line)
      expect(await runInSandbox(command, { signal, ...options, onLine }), lines.join('\n')).toBeUndefined()
    },
  }
  await runApart(build, ['bash', '-euc', script], { network })
  return lines
}

describe('a build step that needs no rights', () => {
  it('an unprivileged step runs as an unused user, without capabilities or a way to gain one', async () => {
    const status = (await run('cat /proc/self/status')).join('\n')
    const user = String(builderUser)
    expect(status).toMatch(new RegExp(`^Uid:\\t${user}\\t${user}\\t${user}\\t${user}$`, 'm'))
    expect(status).toMatch(new RegExp(`^Gid:\\t${user}\\t${user}\\t${user}\\t${user}$`, 'm'))
    expect(status).toMatch(/^Groups:\s*$/m)
    for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'])
      expect(status).toMatch(`Cap${set}:\t0000000000000000`)
    expect(status).toMatch('NoNewPrivs:\t1')
  })

  it('an unprivileged step has its own namespaces, and a network only when it asks for one', async () => {
    const names = ['mnt', 'pid', 'ipc', 'uts', 'net']
    const outside = await Promise.all(names.map((name) => readlink(`/proc/self/ns/${name}`)))
    const script = `for name in ${names.join(' ')}; do readlink /proc/self/ns/$name; done; tail -n +3 /proc/net/dev | cut -d: -f1`
    const inside = await run(script)
    expect(inside.slice(0, 5).filter((name) => outside.includes(name))).toEqual([])
    expect(inside.slice(5).map((line) => line.trim())).toEqual(['lo'])
    expect((await run('readlink /proc/self/ns/net', true))[0]).toBe(outside[4])
  })

  it('an unprivileged step sees only its inputs of the host and can write only to its result', async () => {
    const secret = join(folder, 'secret')
    await writeFile(secret, 'hunter2')
    const script = `
      ls -d /root /home /var/lib/lab ${secret} 2>&1 | grep -v 'No such file' && exit 1
      ls -A /etc | tr '\\n' ' '; echo
      touch /usr/x /etc/x /lab/x /x 2> /dev/null && exit 2
      [ -z "$(ls -A /dev/shm)" ]
      echo made > /lab/out/file; chmod 4777 /lab/out/file; mkdir /lab/out/folder; touch /lab/work/x /tmp/x /dev/shm/x`
    const [etc] = await run(script)
    expect(etc).not.toMatch(/shadow|sudoers|ssh\b|machine-id/)
    expect(await readFile(join(folder, 'out', 'file'), 'utf8')).toBe('made\n')
    const made = await stat(join(folder, 'out', 'file'))
    // No later build runs as the same user and can change it; and the file gives no rights.
    expect({ uid: made.uid, mode: made.mode & 0o7777 }).toEqual({ uid: process.getuid?.(), mode: 0o755 })
    expect((await stat(join(folder, 'out', 'folder'))).uid).toBe(process.getuid?.())
  })
})

describe('a build step that makes a root directory or a disk', () => {
  it('a step that runs as root in its namespace has no privilege over the host', async () => {
    const lines: string[] = []
    const signal = new AbortController().signal
    await runInSandbox(['grep', 'CapEff', '/proc/self/status'], {
      signal,
      onLine: (line) => void lines.push(line),
    })
    const effective = BigInt(`0x${/CapEff:\t(\w+)/.exec(lines[0] ?? '')?.[1] ?? ''}`)
    const has = (bit: number): boolean => (effective & (1n << BigInt(bit))) !== 0n
    // linux/capability.h: net_admin, net_raw, sys_module, sys_rawio, sys_boot, sys_time, syslog.
    expect([12, 13, 16, 17, 22, 25, 34].filter(has)).toEqual([])
    // chown, setuid, sys_chroot.
    expect([0, 7, 18].every(has)).toBe(true)
  })
})
