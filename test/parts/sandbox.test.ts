import { existsSync } from 'node:fs'
import { mkdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { removeTree, runInSandbox, type Ending } from '../../src/parts/sandbox.js'
import { temporaryFolder } from '../helpers/folder.js'
import { setEnvironment } from '../provider/vagrant-tools.js'

let folder = ''
beforeEach(async () => {
  folder = await temporaryFolder()
})

const never = new AbortController().signal

const bash = async (
  script: string,
  environment?: Readonly<Record<string, string>>,
): Promise<{ ending: Ending | undefined; lines: readonly string[] }> => {
  const lines: string[] = []
  const onLine = (line: string): void => void lines.push(line)
  return { ending: await runInSandbox(['bash', '-c', script], { signal: never, environment, onLine }), lines }
}

describe('a command', () => {
  test('a command that succeeds passes on its lines and reports no failure', async () => {
    expect(await bash('echo out; echo err >&2; echo more; printf last')).toEqual({
      ending: undefined,
      lines: ['out', 'err', 'more', 'last'],
    })
  })

  test('a command that fails reports its exit code and its last sixty lines', async () => {
    const { ending, lines } = await bash('seq 100; exit 7')
    expect(ending).toMatchObject({ exitCode: 7 })
    expect(lines).toHaveLength(100)
    expect(ending?.tail).toEqual(lines.slice(-60))
  })

  test('a command that redraws one line reports the final state of that line', async () => {
    expect((await bash(`printf '10%%\\r50%%\\r100%%\\n'; printf 'done  \\n'`)).lines).toEqual([
      '100%',
      'done',
    ])
  })

  test('a command that does not exist is reported as a failure', async () => {
    const ending = await runInSandbox(['lab-has-no-such-program'], { signal: never })
    expect(ending?.exitCode).not.toBe(0)
    expect(ending?.tail.join('\n')).toMatch(/lab-has-no-such-program.*not found/)
  })

  test('the arguments of a command arrive unchanged', async () => {
    const words = ['a b', `"it's"`, '$HOME', '*', '', '--help', '; false']
    const lines: string[] = []
    await runInSandbox(['printf', '%s\\n', ...words], {
      signal: never,
      onLine: (line) => void lines.push(line),
    })
    expect(lines).toEqual(words)
  })

  // Its session as well: a kernel that divides time between sessions counts niceness only within each.
  test.each([undefined, 10])('the niceness of a command is that of its options: %s', async (niceness) => {
    const wanted = String(Math.min(19, getPriority() + (niceness ?? 0)))
    const lines: string[] = []
    await runInSandbox(['bash', '-c', 'nice; cat /proc/self/autogroup'], {
      signal: never,
      niceness,
      onLine: (line) => void lines.push(line),
    })
    expect(lines[0]).toBe(wanted)
    if (existsSync('/proc/self/autogroup')) expect(lines[1]).toMatch(new RegExp(` nice ${wanted}$`))
  })

  test('a command has no standard input to wait for', async () => {
    expect((await bash('cat; echo done')).lines).toEqual(['done'])
  })
})

describe('what a command sees', () => {
  test('a command sees only the environment variables that concern the network', async () => {
    setEnvironment({
      http_proxy: 'http://proxy:3128',
      GOPROXY: 'https://goproxy',
      SECRET: 'hunter2',
      LD_PRELOAD: '',
    })
    const { lines } = await bash('env', { OUT: '/out' })
    expect(lines).toEqual(
      expect.arrayContaining([
        'http_proxy=http://proxy:3128',
        'GOPROXY=https://goproxy',
        'OUT=/out',
        'HOME=/root',
        'LANG=C.UTF-8',
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      ]),
    )
    expect(lines.join('\n')).not.toMatch(/SECRET|LD_PRELOAD|VITEST|LAB_/)
  })

  test('a command sees only its own processes and is the first of them', async () => {
    const { lines } = await bash('echo $$; ls /proc | grep -c "^[0-9]"; id -u')
    const [pid, count, user] = lines.map(Number)
    expect(pid).toBe(1)
    expect(count).toBeLessThan(6)
    // The rights of root, whoever runs this test.
    expect(user).toBe(0)
  })

  test('the mounts of a command are invisible outside and end with it', async () => {
    const here = join(folder, 'here')
    await mkdir(here)
    const running = bash(
      `mount -t tmpfs lab ${here} && echo inside > ${here}/file && touch ${folder}/mounted && sleep 0.3`,
    )
    await vi.waitFor(() => expect(existsSync(join(folder, 'mounted'))).toBe(true), 10_000)
    expect(existsSync(join(here, 'file'))).toBe(false)
    expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(here)
    expect((await running).ending).toBeUndefined()
  })

  test('a command uses the network of the host', async () => {
    expect((await bash('readlink /proc/self/ns/net')).lines).toEqual([await readlink('/proc/self/ns/net')])
  })
})

describe('ending a command early', () => {
  const alive = async (marker: string): Promise<boolean> =>
    (await execa('pgrep', ['-f', `^sleep ${marker}$`], { reject: false })).exitCode === 0

  test('Ctrl-C kills a command and everything it started, even processes that ignore signals', async () => {
    const stop = new AbortController()
    const marker = `33${process.pid}`
    const script = `trap '' TERM INT HUP; (setsid sleep ${marker} &) ; sleep ${marker}; wait; sleep 1000`
    const running = runInSandbox(['bash', '-c', script], { signal: stop.signal }).catch(
      (error: unknown) => error,
    )
    await vi.waitFor(async () => expect(await alive(marker)).toBe(true), 10_000)
    stop.abort()
    expect(await running).toMatchObject({ code: 'interrupted', exitCode: 130 })
    await vi.waitFor(async () => expect(await alive(marker)).toBe(false), 5000)
  })

  test('a command that is aborted before it begins does not begin', async () => {
    const reason = new Error('enough')
    const made = join(folder, 'made')
    await expect(runInSandbox(['touch', made], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(existsSync(made)).toBe(false)
  })

  test('the processes that a command leaves running end with it', async () => {
    const marker = `34${process.pid}`
    await bash(`setsid sleep ${marker} >/dev/null 2>&1 & sleep 0.2`)
    await vi.waitFor(async () => expect(await alive(marker)).toBe(false), 5000)
  })
})

describe('removeTree', () => {
  test('removeTree removes everything in a folder and does not follow links out of it', async () => {
    const outside = join(folder, 'outside')
    await writeFile(outside, 'precious')
    const tree = join(folder, '-rf odd\nname')
    await mkdir(join(tree, 'read-only'), { recursive: true })
    await writeFile(join(tree, 'read-only', 'file'), '')
    await execa('ln', ['-s', outside, join(tree, 'link')])
    await execa('chmod', ['-R', 'a-w', tree])
    await removeTree(tree)
    expect(existsSync(tree)).toBe(false)
    expect(await readFile(outside, 'utf8')).toBe('precious')
  })

  test('removeTree succeeds on a folder that does not exist', async () => {
    await removeTree(join(folder, 'none'))
  })
})
