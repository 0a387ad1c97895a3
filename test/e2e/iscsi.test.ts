/** labs/iscsi.yaml on real machines: the whole story without a fault, access control, and leaving nothing behind. */
import { readFile, rm } from 'node:fs/promises'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { execa } from 'execa'
import { Bench, cli } from './lab.js'

const bench = new Bench()

/** What every user of this host can read about its processes. */
const commandLines = (): string =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      } catch {
        return ''
      }
    })
    .join('\n')

afterAll(() => bench.close())

describe('lab up iscsi', () => {
  beforeAll(async () => {
    await bench.up('iscsi')
  })

  it('lab verify passes every check', async () => {
    expect(await bench.complaints('iscsi')).toEqual([])
  })

  it('lab up says that nothing is left to do the second time', async () => {
    expect(await bench.up('iscsi')).toEqual([])
    expect(await bench.ok('up', 'iscsi')).toContain('nothing to do')
  })

  it('lab status lists machines and files, also as JSON that matches its schema', async () => {
    const status = await bench.json<{ schema: string; up: boolean; files: { sshConfig: string } }>(
      'status',
      'iscsi',
    )
    expect(status).toMatchObject({ schema: 'lab.status/v1', up: true })
    expect(existsSync(status.files.sshConfig)).toBe(true)
  })

  it("the user's own ssh logs in with the pinned host key", async () => {
    const { files } = await bench.json<{ files: { sshConfig: string } }>('status', 'iscsi')
    const { stdout } = await execa('ssh', [
      '-F',
      files.sshConfig,
      '-o',
      'BatchMode=yes',
      'initiator',
      'hostname',
    ])
    expect(stdout).toBe('initiator')
  })

  it('lab exec runs a command on one machine, on a role or on all, and returns its exit code', async () => {
    expect(await bench.ok('exec', 'iscsi', 'target', '--', 'hostname')).toBe('target')
    expect(await bench.ok('exec', 'iscsi', 'all', '--', 'echo', "it's $HOME")).toMatch(
      /initiator \| it's \$HOME/,
    )
    expect((await bench.lab('exec', 'iscsi', 'target', '--', 'sh', '-c', 'exit 7')).exitCode).toBe(7)
  })

  it('lab exec -o json separates what a command printed on each machine', async () => {
    const { stdout } = await bench.lab('exec', '-o', 'json', 'iscsi', 'all', '--', 'hostname')
    expect(JSON.parse(stdout)).toEqual({
      schema: 'lab.exec/v1',
      name: 'iscsi',
      command: 'hostname',
      results: ['target', 'initiator'].map((machine) => ({
        machine,
        exitCode: 0,
        stdout: `${machine}\n`,
        stderr: '',
      })),
    })
  })

  it('lab cp copies a file to a machine and back', async () => {
    const there = join(bench.folder, 'there')
    const back = join(bench.folder, 'back')
    await execa('dd', ['if=/dev/urandom', `of=${there}`, 'bs=1K', 'count=300'], { stderr: 'ignore' })
    await bench.ok('cp', 'iscsi', there, 'initiator:/root/there')
    await bench.ok('cp', 'iscsi', 'initiator:/root/there', back)
    expect(await readFile(back)).toEqual(await readFile(there))
  })

  it('the lab listens only on 127.0.0.1 of the host', async () => {
    const { stdout: pids } = await execa('pgrep', ['-f', `supervisor.js ${bench.env.LAB_STATE}`])
    const { stdout } = await execa('ss', [
      '--no-header',
      '--listening',
      '--tcp',
      '--udp',
      '--numeric',
      '--processes',
    ])
    const ours = stdout
      .split('\n')
      .filter((line) => pids.split('\n').some((pid) => line.includes(`pid=${pid},`)))
    expect(ours.filter((line) => !line.includes(' 127.0.0.1:'))).toEqual([])
  })

  it('other users cannot read the files of the lab', async () => {
    const { stdout } = await execa('find', [
      join(bench.env.LAB_STATE, 'iscsi'),
      '-type',
      'f',
      '-perm',
      '/077',
    ])
    const readable = stdout.split('\n').filter((path) => path !== '' && !/\/(root\.cow|uml\/)/.test(path))
    expect(readable).toEqual([])
  })

  it('lab power switches a machine off and on again, and lab status says who was switched off by hand', async () => {
    expect(await bench.ok('power', 'iscsi', 'initiator', 'status')).toContain('initiator is on')
    expect(await bench.ok('power', 'iscsi', 'initiator', 'off')).toContain('initiator is off')
    const status = await bench.json<{ up: boolean; offByHand: readonly string[] }>('status', 'iscsi')
    expect(status).toMatchObject({ up: false, offByHand: ['initiator'] })
    expect(await bench.ok('power', 'iscsi', 'initiator', 'off')).toContain('no change')
    expect(await bench.ok('power', 'iscsi', 'initiator', 'on')).toContain('initiator is on')
    expect(await bench.json('status', 'iscsi')).toMatchObject({ up: true, offByHand: [] })
    const bootId = () => bench.ok('exec', 'iscsi', 'target', '--', 'cat', '/proc/sys/kernel/random/boot_id')
    const before = await bootId()
    await bench.ok('power', 'iscsi', 'target', 'cycle')
    await bench.up('iscsi')
    expect(await bootId()).not.toBe(before)
  })

  it('lab heal switches on a machine that was switched off by hand', async () => {
    await bench.ok('power', 'iscsi', 'target', 'off')
    const { exitCode, stderr } = await bench.lab('heal', 'iscsi')
    expect(stderr).toContain('undoing what was done by hand: lab power iscsi target off')
    expect(exitCode).toBe(0)
    expect(await bench.json('status', 'iscsi')).toMatchObject({ up: true, offByHand: [] })
    expect(await bench.complaints('iscsi')).toEqual([])
  })

  it('lab verify names what was broken by hand, and lab up repairs it', async () => {
    await bench.ok(
      'exec',
      'iscsi',
      'target',
      '--',
      'sh',
      '-c',
      'echo 0 | tee /sys/kernel/config/target/iscsi/iqn*/tpgt_1/attrib/authentication',
    )
    expect(await bench.complaints('iscsi')).toEqual(
      expect.arrayContaining(['target00-chap', 'target00-refuses-no-password']),
    )
    expect(await bench.up('iscsi')).toContain('serve-target00')
    expect(await bench.complaints('iscsi')).toEqual([])
  })

  it('lab up restarts a machine whose process was killed', async () => {
    const { stdout } = await execa('pgrep', ['-f', `umid=initiator .*${bench.env.LAB_STATE}`])
    for (const pid of stdout.split('\n')) process.kill(Number(pid), 'SIGKILL')
    expect(await bench.complaints('iscsi')).toContain('initiator-running')
    expect(await bench.up('iscsi')).toContain('boot-initiator')
    expect(await bench.complaints('iscsi')).toEqual([])
  })

  it('the file is still there after lab stop and lab start', async () => {
    await bench.ok('stop', 'iscsi')
    const { up } = await bench.json<{ up: boolean }>('status', 'iscsi')
    expect(up).toBe(false)
    await bench.ok('start', 'iscsi')
    expect(await bench.complaints('iscsi')).toEqual([])
  })

  it('two labs use the same addresses at the same time, one in a folder with a space, a comma and a colon', async () => {
    const other = new Bench('my labs: a,b')
    try {
      await other.up(await other.variant('iscsi', 'twin', () => undefined))
      expect(await other.ok('exec', 'twin', 'initiator', '--', 'hostname')).toBe('initiator')
      const config = join(other.env.LAB_STATE, 'twin', 'ssh_config')
      expect((await execa('ssh', ['-F', config, 'target', 'hostname'])).stdout).toBe('target')
      expect(await other.complaints('twin')).toEqual([])
      expect(await bench.complaints('iscsi')).toEqual([])
      expect(await other.ok('down', 'twin')).toContain('nothing left')
    } finally {
      await other.close()
    }
  })

  it("lab down removes everything, even when the lab's folder was damaged", async () => {
    await rm(join(bench.env.LAB_STATE, 'iscsi', 'machines', 'target', 'base.json'))
    await rm(join(bench.env.LAB_STATE, 'iscsi', 'lab.yaml'))
    expect(await bench.ok('down', 'iscsi')).toContain('nothing left')
    await expect(execa('pgrep', ['-f', join(bench.env.LAB_STATE, 'iscsi')])).rejects.toThrow()
    expect(await bench.ok('down', 'iscsi')).toContain('was not up')
  })
})

describe('a lab file with other values', () => {
  it('two targets on another subnet work with every kind of secret', async () => {
    const file = await bench.variant('iscsi', 'nasty', (lab) => {
      Object.assign(lab, {
        network: { subnet: '10.20.30.0/24' },
        machines: [
          { name: 'store1', role: 'target', address: '10.20.30.5', memory: '256MiB' },
          { name: 'store2', role: 'target', address: '10.20.30.6', memory: '256MiB' },
          {
            name: 'client',
            role: 'initiator',
            address: '10.20.30.7',
            memory: '300MiB',
            iqn: 'iqn.2026-11.example.lab:one.two',
          },
        ],
        iscsi: {
          targets: [
            {
              machine: 'store1',
              iqn: 'iqn.2026-11.example.lab:first',
              port: 3333,
              chap: { username: 'us er', password: `it's "quoted" $HOME \`id\` \\ #not ünï` },
              luns: [{ lun: 0, size: '64MiB' }],
            },
            {
              machine: 'store2',
              iqn: 'iqn.2026-11.example.lab:second',
              chap: { username: 'ユーザー', password: 'パスワード=100%; rm -rf /' },
              luns: [{ lun: 3, size: '128MiB' }],
            },
          ],
        },
        filesystems: [
          {
            initiator: 'client',
            target: 'iqn.2026-11.example.lab:first',
            lun: 0,
            directory: 'mysql-data',
            mode: '0750',
          },
        ],
      })
    })
    await bench.up(file)
    expect(await bench.complaints('nasty')).toEqual([])
    const { stdout, stderr } = await bench.lab('verify', 'nasty')
    expect(`${stdout}${stderr}`).not.toContain('パスワード=100%')
    expect(commandLines()).not.toContain('パスワード=100%')
    await bench.ok('down', 'nasty')
  })
})

/** The lab `grown`, whose only LUN has this size. */
const withLunOf = (size: string): Promise<string> =>
  bench.variant('iscsi', 'grown', (lab) => {
    const { iscsi } = lab as unknown as { iscsi: { targets: readonly { luns: unknown }[] } }
    for (const target of iscsi.targets) target.luns = [{ lun: 0, size }]
  })

describe('a LUN whose size changes in the lab file', () => {
  const mountPoint = '/mnt/target00-lun-0'
  const onInitiator = (script: string): Promise<string> =>
    bench.ok('exec', 'grown', 'initiator', '--', 'sh', '-c', script)
  /** Bytes of the disk, and of its file system. */
  const sizes = async (): Promise<readonly number[]> =>
    (
      await onInitiator(
        `blockdev --getsize64 "$(findmnt -no SOURCE ${mountPoint})"; df --output=size -B1 ${mountPoint} | tail -n 1`,
      )
    )
      .split('\n')
      .map(Number)

  it('lab up grows the LUN and its file system while a program writes to it', async () => {
    await bench.up(await withLunOf('96MiB'))
    const [, before = 0] = await sizes()
    await onInitiator(
      `dd if=/dev/urandom of=${mountPoint}/kept bs=1M count=16 2>/dev/null; sha256sum ${mountPoint}/kept > /root/sum
       nohup sh -c 'exec >> ${mountPoint}/lines; n=0; while sleep 0.1; do n=$((n + 1)); echo $n || touch /root/refused; done' >/dev/null 2>&1 & echo $! > /root/writer`,
    )
    const changed = await bench.up(await withLunOf('192MiB'))
    expect(changed).toContain('grow-filesystem-target00-lun-0')
    const [disk, after = 0] = await sizes()
    expect(disk).toBe(192 * 1024 ** 2)
    expect(after).toBeGreaterThan(before + 80 * 1024 ** 2)
    // The process and the open file are the same as before, and no line is lost.
    expect(
      await onInitiator(
        `kill $(cat /root/writer) && test ! -e /root/refused && sha256sum --check --quiet /root/sum
         awk '$1 != NR { exit 1 } END { exit NR < 10 }' ${mountPoint}/lines && echo whole`,
      ),
    ).toBe('whole')
    expect(await bench.complaints('grown')).toEqual([])
  })

  it('lab plan and lab up refuse to shrink a LUN, name the size to write instead, and change nothing', async () => {
    const smaller = await withLunOf('128MiB')
    for (const command of ['plan', 'up']) {
      const { exitCode, stdout, stderr } = await bench.lab(command, smaller)
      expect(`${stdout}${stderr}`).toMatch(/LUN 0 of \S+ has 192MiB, but the lab file says 128MiB/)
      expect(`${stdout}${stderr}`).toContain('size: 192MiB')
      expect(exitCode).not.toBe(0)
    }
    expect(await bench.up(await withLunOf('192MiB'))).toEqual([])
    expect(await bench.ok('down', 'grown')).toContain('nothing left')
  })
})

describe('Ctrl-C', () => {
  it('lab up exits with 130 and a message at Ctrl-C, and the next lab up continues from there', async () => {
    const run = execa(process.execPath, [cli, 'up', 'iscsi'], {
      env: bench.env,
      reject: false,
      stdin: 'ignore',
    })
    setTimeout(() => run.kill('SIGINT'), 1500)
    const { exitCode, stderr } = await run
    expect(exitCode).toBe(130)
    expect(stderr).toContain('interrupted')
    await bench.up('iscsi')
    expect(await bench.complaints('iscsi')).toEqual([])
    await bench.ok('down', 'iscsi')
  })
})
