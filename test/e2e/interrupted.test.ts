/**
 * Runs that fail and runs that are interrupted, on real machines. However a run ends, the lab is healed, or `lab` says
 * how to heal it, and no secret of the lab file appears in anything that was printed or kept. Takes about 8 minutes on
 * two idle cores.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { quote } from '../../src/machine/sh.js'
import type { RunReport } from '../../src/report/schema.js'
import { Bench, cli } from './lab.js'

const bench = new Bench()
afterAll(async () => {
  await bench.lab('down', 'odd')
  await bench.close()
})

/**
 * Characters with a special meaning in shells, YAML, SQL, URLs, HTML or Kubernetes' variables, and a word to search
 * for.
 */
const odd = (word: string): string => `it's <${word}> & "$HOME" $(${word}) \`${word}\` 100%n \\ /?@: ü`
const words = ['zebraQuilt47', 'yodelGnome58', 'xenonMarsh69', 'walrusPlum70', 'vortexLamp81', 'umberNudge92']
const [chapName, chapPassword, mutualName, mutualPassword, userPassword, rootPassword] = words.map(odd)

const folder = join(bench.env.LAB_STATE, 'odd')
/** The output of all commands in this file. */
let printed = ''

const lab = async (...args: readonly string[]) => {
  const ran = await bench.lab(...args)
  printed += `${ran.stdout}\n${ran.stderr}\n`
  return ran
}

beforeAll(async () => {
  const file = await bench.variant('iscsi-ha', 'odd', (shipped) => {
    const spec = shipped as unknown as {
      iscsi: { targets: { chap: object }[] }
      database: object
      scenarios: object[]
    }
    Object.assign(spec.iscsi.targets[0]?.chap ?? {}, {
      username: chapName,
      password: chapPassword,
      mutual: { username: mutualName, password: mutualPassword },
    })
    Object.assign(spec.database, { password: userPassword, rootPassword })
    // No node is lost here. On a busy host, a node that is only late must not be fenced.
    Object.assign(spec, { failover: 'default' })
    spec.scenarios.push({
      name: 'hopeless',
      inject: [{ fault: 'drain', machine: 'database' }],
      expect: { writeGap: '100ms' },
    })
  })
  const { exitCode, stdout, stderr } = await lab('up', file, '--events')
  if (exitCode !== 0) throw new Error(`${stdout}\n${stderr}`)
})

const latest = async (): Promise<RunReport> =>
  JSON.parse(await readFile(join(folder, 'runs', 'latest', 'report.json'), 'utf8')) as RunReport

const until = async (what: string, wanted: () => Promise<boolean> | boolean): Promise<void> => {
  const deadline = performance.now() + 240_000
  while (!(await wanted())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within 240 s`)
    await delay(100)
  }
}

/**
 * A command in a terminal of its own, below a shell that waits for its exit code. When the terminal is closed, the shell
 * gets the signal and passes it on to its jobs. Typed keys go to the foreground job.
 */
class Terminal {
  readonly #child: ChildProcess
  readonly #name: string

  constructor(name: string, command: readonly string[], { behind = false } = {}) {
    this.#name = name
    const run = [process.execPath, cli, ...command].map(quote).join(' ')
    const behindIt = `${run} & trap "kill -HUP $!" HUP; wait $!; wait $!; echo $? > ${this.#path('code')}`
    const inFront = `trap : INT; ${run}; echo $? > ${this.#path('code')}`
    const words = ['--quiet', '--flush', '--command', behind ? behindIt : inFront, this.#path('told')]
    this.#child = spawn('script', words, {
      env: { ...process.env, ...bench.env },
      cwd: bench.folder,
      stdio: ['pipe', 'ignore', 'ignore'],
    })
  }

  #path(what: string): string {
    return join(bench.folder, `${this.#name}.${what}`)
  }

  #read(what: string): Promise<string> {
    return readFile(this.#path(what), 'utf8').catch(() => '')
  }

  async says(words: string): Promise<void> {
    await until(words, async () => (await this.#read('told')).includes(words))
  }

  type(keys: string): void {
    this.#child.stdin?.write(keys)
  }

  /** Ends this process, and with it the terminal. */
  close(): void {
    this.#child.kill('SIGKILL')
  }

  /** Kills only `lab` itself. */
  kill(): void {
    const found = spawn('pkill', ['-KILL', '--full', `^${process.execPath} ${cli} run odd `])
    found.unref()
  }

  /** What the run printed, if it has ended. */
  async ended(): Promise<string | undefined> {
    return (await this.#read('code')).trim() === '' ? undefined : this.#read('told')
  }

  async exitCode(): Promise<number> {
    await until('an exit code', async () => (await this.#read('code')).trim() !== '')
    printed += await this.#read('told')
    return Number(await this.#read('code'))
  }
}

/** Waits until the fault was seen to act; from then on, the ledger counts. */
const inFault = async (terminal: Terminal): Promise<void> => {
  await until('a fault in the journal', async () => {
    // A run that has ended cannot break anything any more, so its output is the reason.
    const ended = await terminal.ended()
    if (ended !== undefined) throw new Error(`the run ended before its fault: ${ended}`)
    return (await bench.openFaults('odd')).length > 0
  })
  await delay(2000)
}

/** Waits until a command holds the lab's lock, or has ended. */
const atWork = (verb: string, terminal: Terminal): Promise<void> =>
  until(`lab ${verb} at work`, async () => {
    const lock = await readFile(join(bench.env.LAB_STATE, '.odd.lock'), 'utf8').catch(() => '')
    return lock.includes(`lab ${verb} odd`) || (await terminal.ended()) !== undefined
  })

it('lab run fails when writes stop for longer than the scenario expects, and leaves the lab healed', async () => {
  const { exitCode } = await lab('run', 'odd', 'hopeless')
  expect(exitCode).toBe(1)
  expect((await latest()).verdict).toBe('FAIL')
  expect(await bench.openFaults('odd')).toEqual([])
  await bench.whole('odd')
})

it.each([
  { name: 'its terminal is closed', behind: true, end: (terminal: Terminal) => terminal.close() },
  { name: 'Ctrl-C is pressed', behind: false, end: (terminal: Terminal) => terminal.type('\u0003') },
])(
  'lab run heals the lab and keeps a report when $name in the middle of a fault',
  async ({ name, behind, end }) => {
    const terminal = new Terminal(name.replaceAll(/\W/g, '-'), ['run', 'odd', 'slow-network'], { behind })
    await inFault(terminal)
    end(terminal)
    expect(await terminal.exitCode()).toBe(130)
    expect(await bench.openFaults('odd')).toEqual([])
    expect(await latest()).toMatchObject({ interrupted: true })
    expect((await latest()).verdict).not.toBe('PASS')
    await bench.whole('odd')
  },
)

it('lab heal repairs what a run killed in the middle of a fault left behind', async () => {
  const terminal = new Terminal('killed', ['run', 'odd', 'slow-network'])
  await inFault(terminal)
  terminal.kill()
  expect(await terminal.exitCode()).toBe(137)
  expect(await bench.openFaults('odd')).not.toEqual([])
  expect((await lab('heal', 'odd')).exitCode).toBe(0)
  expect(await bench.openFaults('odd')).toEqual([])
  expect(await latest()).toMatchObject({ interrupted: true })
  await bench.whole('odd')
})

it('lab heal whose terminal is closed can be repeated, and makes the lab whole', async () => {
  const run = new Terminal('left-open', ['run', 'odd', 'slow-network'])
  await inFault(run)
  run.kill()
  expect(await run.exitCode()).toBe(137)
  const heal = new Terminal('healing', ['heal', 'odd'], { behind: true })
  await atWork('heal', heal)
  heal.close()
  // A quick host may have healed the lab by then.
  expect([0, 130]).toContain(await heal.exitCode())
  expect((await lab('heal', 'odd')).exitCode).toBe(0)
  expect(await bench.openFaults('odd')).toEqual([])
  await bench.whole('odd')
})

it('lab heal restores a database that a run killed while reading back had scaled to zero', async () => {
  const terminal = new Terminal('reading', ['run', 'odd', 'storage-partition'])
  await terminal.says('reading back')
  const replicas = ['get', 'deployment', 'mysql-server', '-o', 'jsonpath={.spec.replicas}']
  await until('a database that is switched off', async () => {
    const { stdout } = await bench.lab('kubectl', 'odd', '--', ...replicas)
    return stdout === '0'
  })
  terminal.kill()
  expect(await terminal.exitCode()).toBe(137)
  expect((await lab('heal', 'odd')).exitCode).toBe(0)
  expect(await bench.openFaults('odd')).toEqual([])
  await bench.whole('odd')
})

it('lab up whose terminal is closed while machines start can be repeated, and makes the lab whole', async () => {
  await bench.ok('stop', 'odd')
  const terminal = new Terminal('starting', ['up', 'odd'], { behind: true })
  await until('a machine that starts', async () => {
    const { stdout } = await bench.lab('status', 'odd', '-o', 'json')
    return /"status":\s*"running"/.test(stdout)
  })
  terminal.close()
  expect(await terminal.exitCode()).toBe(130)
  expect((await lab('up', 'odd')).exitCode).toBe(0)
  await bench.whole('odd')
})

it('a failing run masks the secrets that a program on a worker prints', async () => {
  // It prints its configuration, as tools do, and finally the line that it cannot read.
  const line = `node.session.auth.password = ${chapPassword ?? ''}`
  const on = (script: string) => bench.ok('exec', 'odd', 'worker1', '--', 'sh', '-c', script)
  await on(
    `cp -a /usr/sbin/iscsiadm /root/iscsiadm
     printf '%s\\n' ${quote(line)} > /root/line
     printf '%s\\n' '#!/bin/sh' 'cat $(find /etc/iscsi /var/lib/iscsi -type f) >&2; cat - /root/line >&2; exit 7' > /usr/sbin/iscsiadm`,
  )
  for (const how of [[], ['-o', 'json']]) {
    const { exitCode, stdout, stderr } = await lab('run', 'odd', 'hopeless', ...how)
    expect(exitCode).not.toBe(0)
    expect(`${stdout}\n${stderr}`).toContain('***')
  }
  expect((await latest()).verdict).not.toBe('PASS')
  expect(await readFile(join(folder, 'runs', 'latest', 'report.html'), 'utf8')).toContain('***')
  await on('cp -a /root/iscsiadm /usr/sbin/iscsiadm; rm /root/iscsiadm /root/line')
  expect((await lab('heal', 'odd')).exitCode).toBe(0)
  await bench.whole('odd')
})

it('no printed or kept output contains a secret', async () => {
  for (const args of [['verify'], ['status'], ['report']])
    for (const how of [[], ['-o', 'json']]) await lab(...args, 'odd', ...how)
  for (const machine of ['target', 'master', 'worker1']) await lab('logs', 'odd', machine)
  await lab('plan', 'odd')
  const all = await readdir(folder, { recursive: true, withFileTypes: true })
  const kept = all.filter(
    (entry) =>
      entry.isFile() &&
      (entry.name.endsWith('.log') || /\/(runs|fencing|faults)(\/|$)/.test(entry.parentPath)),
  )
  expect(kept.length).toBeGreaterThan(10)
  const texts = new Map([['printed', printed]])
  for (const { parentPath, name } of kept)
    texts.set(join(parentPath, name), await readFile(join(parentPath, name), 'latin1'))
  // In base64, a word has three possible forms, depending on its position. Its first and last characters also depend on
  // its neighbours.
  const forms = words.flatMap((word) => [
    word,
    ...['', 'x', 'xx'].map((before) =>
      Buffer.from(before + word)
        .toString('base64')
        .slice(before.length > 0 ? 4 : 0, -4),
    ),
  ])
  const found = [...texts].flatMap(([where, text]) =>
    forms.filter((form) => text.includes(form)).map((form) => `${where}: ${form}`),
  )
  expect(found).toEqual([])
  // The secrets must occur in one place: the lab's own copy of its file.
  const source = await readFile(join(folder, 'lab.yaml'), 'utf8')
  for (const word of words) expect(source).toContain(word)
})

it('lab down whose terminal is closed leaves nothing that the next lab down does not remove', async () => {
  const terminal = new Terminal('ending', ['down', 'odd'], { behind: true })
  await atWork('down', terminal)
  terminal.close()
  const exitCode = await terminal.exitCode()
  // A quick host may have ended the lab by then; a lab that is half ended has exit code 130.
  expect([0, 130]).toContain(exitCode)
  if (exitCode === 0) expect(existsSync(folder)).toBe(false)
  expect(await bench.ok('down', join(bench.folder, 'odd.yaml'))).toMatch(/nothing left/)
})
