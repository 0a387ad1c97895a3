import { mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { holderOf, takeLock } from '../src/lock.js'
import { dist } from './helpers/cli.js'
import { temporaryFolder } from './helpers/folder.js'

let folder = ''
let path = ''
beforeEach(async () => {
  folder = await temporaryFolder()
  path = join(folder, 'deep', 'lock')
})

/** Another `lab`, as a separate process: it reports what happens, and releases the lock when its input ends. */
const program = `
  import { takeLock } from '${join(dist, 'lock.js')}'
  const say = (word, more = '') => process.stdout.write(word + ' ' + more + '\\n')
  const stop = new AbortController()
  process.on('SIGTERM', () => stop.abort())
  try {
    const release = await takeLock(process.env.LOCK, {
      command: process.env.COMMAND,
      purpose: 'change',
      signal: stop.signal,
      ...(process.env.WAIT ? { wait: (holder) => say('waits', holder) } : {}),
    })
    say('has')
    for await (const _ of process.stdin);
    await release()
    say('gave')
  } catch (error) {
    say(error.code ?? error.name, JSON.stringify({ message: error.message, hint: error.hint, exitCode: error.exitCode }))
  }
`

class Other {
  readonly child
  #said = ''

  constructor(command = 'lab up a', env: Readonly<Record<string, string>> = {}) {
    this.child = execa(process.execPath, ['--input-type=module', '--eval', program], {
      env: { LOCK: path, COMMAND: command, ...env },
      reject: false,
      buffer: false,
      stdin: 'pipe',
    })
    this.child.stdout.on('data', (chunk: Buffer) => {
      this.#said += String(chunk)
    })
    onTestFinished(() => void this.child.kill('SIGKILL'))
  }

  get said(): readonly string[] {
    return this.#said.split('\n').slice(0, -1)
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  /** The rest of the first line that begins with this word, as soon as it is there. */
  async says(word: string): Promise<string> {
    for (const until = Date.now() + 20_000; Date.now() < until;) {
      const line = this.said.find((said) => said.startsWith(`${word} `))
      if (line !== undefined) return line.slice(word.length + 1)
      if (this.child.stdout.readableEnded) break
      await delay(10)
    }
    throw new Error(`it did not say ${word}, but: ${this.said.join('; ')}`)
  }

  async gives(): Promise<void> {
    this.child.stdin.end()
    await this.says('gave')
    await this.child
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.child.kill(signal)
    await this.child
  }
}

const left = (): Promise<readonly string[]> => readdir(join(folder, 'deep'))

describe('a lock', () => {
  test('lab takes a lock and releases it, and leaves nothing behind', async () => {
    const one = new Other()
    await one.says('has')
    expect(await left()).toEqual(['lock'])
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    await one.gives()
    expect(await left()).toEqual([])
    const two = new Other()
    await two.says('has')
    await two.gives()
  })

  test('lab tells a second process at once who holds the lock', async () => {
    const one = new Other('lab up iscsi-ha')
    await one.says('has')
    const two = new Other('lab down iscsi-ha')
    const { message, hint, exitCode } = JSON.parse(await two.says('busy'))
    expect(message).toMatch(
      new RegExp(
        `^lab up iscsi-ha \\(pid ${one.pid}, since 20\\d\\d-\\d\\d-\\d\\dT[\\d:.]+Z\\) is working on this lab$`,
      ),
    )
    expect(hint).toContain('--wait')
    expect(exitCode).toBe(4)
    await two.child
    expect(await left()).toEqual(['lock'])
    await one.gives()
  })

  test('lab waits for a lock on request, says so once, and takes it as soon as it is free', async () => {
    const one = new Other('lab up a')
    await one.says('has')
    const two = new Other('lab down a', { WAIT: 'yes' })
    expect(await two.says('waits')).toMatch(new RegExp(`^lab up a \\(pid ${one.pid}, since `))
    // Several times the interval of its polling.
    await delay(700)
    expect(two.said).toHaveLength(1)
    await one.gives()
    const free = Date.now()
    await two.says('has')
    expect(Date.now() - free).toBeLessThan(2000)
    await two.gives()
    expect(await left()).toEqual([])
  })

  test('lab stops waiting at Ctrl-C, and leaves the lock with its holder', async () => {
    const one = new Other()
    await one.says('has')
    const two = new Other('lab down a', { WAIT: 'yes' })
    await two.says('waits')
    await two.kill('SIGTERM')
    expect(two.said.at(-1)).toContain('abort')
    expect(await left()).toEqual(['lock'])
    await one.gives()
  })

  test('lab gives the lock to exactly one of many processes that ask at once', async () => {
    const all = Array.from({ length: 6 }, (_, index) => new Other(`lab up ${index}`))
    await Promise.all(all.map((other) => Promise.any([other.says('has'), other.says('busy')])))
    expect(all.filter(({ said }) => said[0] === 'has ')).toHaveLength(1)
  })
})

describe('a lock whose holder is gone', () => {
  test.each(['SIGKILL', 'SIGHUP'] as const)(
    'the lock of a holder that is gone is free at once: %s',
    async (signal) => {
      const one = new Other('lab up a')
      await one.says('has')
      await one.kill(signal)
      expect(await left()).toEqual(['lock'])
      const two = new Other('lab up b')
      await two.says('has')
      expect(two.said).toEqual(['has '])
      expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ pid: two.pid, command: 'lab up b' })
      await two.gives()
      expect(await left()).toEqual([])
    },
  )

  test('lab frees processes that wait for a lock when its holder is gone', async () => {
    const one = new Other('lab up a')
    await one.says('has')
    const two = new Other('lab up b', { WAIT: 'yes' })
    await two.says('waits')
    await one.kill('SIGKILL')
    await two.says('has')
    await two.gives()
  })

  test('lab takes over the lock of a zombie process', async () => {
    // The holder's parent never waits for it, so its pid stays in /proc, as under the first process of a container.
    const parent = execa(
      'bash',
      ['-c', '"$NODE" --input-type=module --eval "$PROGRAM" <&0 & exec sleep 60'],
      {
        env: { NODE: process.execPath, PROGRAM: program, LOCK: path, COMMAND: 'lab up a' },
        reject: false,
        // Its input never ends, so it holds the lock.
        stdin: 'pipe',
      },
    )
    onTestFinished(async () => {
      parent.kill('SIGKILL')
      await parent
    })
    let pid = 0
    for (const until = Date.now() + 20_000; Date.now() < until && pid === 0;) {
      await delay(20)
      pid = (JSON.parse(await readFile(path, 'utf8').catch(() => '{}')) as { pid?: number }).pid ?? 0
    }
    expect(pid).toBeGreaterThan(0)
    process.kill(pid, 'SIGKILL')
    const state = (): Promise<string> => readFile(`/proc/${pid}/stat`, 'utf8')
    await vi.waitFor(async () => expect(await state()).toContain(') Z '), 5000)
    const two = new Other('lab up b')
    await two.says('has')
    await two.gives()
  })

  test('lab takes over a lock whose pid belongs to another process by now', async () => {
    const one = new Other('lab up a')
    await one.says('has')
    const holder = JSON.parse(await readFile(path, 'utf8'))
    await one.kill('SIGKILL')
    // This process lives, but began at another time than the one that took the lock.
    await writeFile(path, JSON.stringify({ ...holder, pid: process.pid }))
    const two = new Other('lab up b')
    await two.says('has')
    await two.gives()
  })

  test('lab takes over a lock file that a power cut left empty', async () => {
    const one = new Other()
    await one.says('has')
    await one.kill('SIGKILL')
    await writeFile(path, '')
    const two = new Other('lab up b')
    await two.says('has')
    await two.gives()
    expect(await left()).toEqual([])
  })

  test.each(['{', '\0', 'null', '{}', '[]', '[null]', '5', '"x"', '{"pid":1}', '{"pid":"1","started":"2"}'])(
    'lab takes over a lock file that names no holder: %j',
    async (text) => {
      await mkdir(dirname(path))
      await writeFile(path, text)
      expect(await holderOf(path)).toBeUndefined()
      const release = await takeLock(path, {
        command: 'lab up a',
        purpose: 'change',
        signal: new AbortController().signal,
      })
      expect(await holderOf(path)).toMatchObject({ pid: process.pid, command: 'lab up a' })
      await release()
      expect(await left()).toEqual([])
    },
  )

  test('lab never gives the lock of a dead holder to two processes at once', async () => {
    // Each takes the lock, checks that it is alone, and leaves the lock as a killed process would: all others then
    // find it at once.
    const racer = `
      import { mkdirSync, renameSync, rmdirSync, writeFileSync } from 'node:fs'
      import { setTimeout as delay } from 'node:timers/promises'
      import { takeLock } from '${join(dist, 'lock.js')}'
      const { LOCK } = process.env
      // On a busy host until each has had it often enough.
      let had = 0
      for (const until = Date.now() + 2000; had <= 13 || Date.now() < until; ) {
        try {
          await takeLock(LOCK, { command: 'lab up a', signal: new AbortController().signal })
        } catch (error) {
          if (error.code === 'busy') continue
          throw error
        }
        mkdirSync(LOCK + '.alone')
        console.log('had')
        had += 1
        await delay(1)
        rmdirSync(LOCK + '.alone')
        const dead = LOCK + '.dead-' + process.pid
        writeFileSync(dead, JSON.stringify({ pid: process.pid, started: 'before', command: '', since: '' }))
        renameSync(dead, LOCK)
      }`
    const racers = await Promise.all(
      Array.from({ length: 4 }, () =>
        execa(process.execPath, ['--input-type=module', '--eval', racer], {
          env: { LOCK: path },
          reject: false,
          stdin: 'ignore',
        }),
      ),
    )
    expect(racers.map(({ stderr }) => stderr)).toEqual(['', '', '', ''])
    expect(
      racers
        .map(({ stdout }) => stdout)
        .join('\n')
        .split('\n').length,
    ).toBeGreaterThan(50)
    await rename(path, `${path}.last`)
    expect(await left()).toEqual(['lock.last'])
  })
})
