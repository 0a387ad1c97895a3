/** A terminal is closed while a command works: the command ends cleanly, as on Ctrl-C. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { quote } from '../../src/machine/sh.js'
import { allProcesses, argumentsOf, startOf } from '../../src/processes.js'
import { cli, Desk } from '../helpers/cli.js'

vi.setConfig({ testTimeout: 240_000 })

/** A desk where another command, this test, holds the lab. */
const busyDesk = async (): Promise<Desk> => {
  const desk = new Desk()
  const holder = {
    pid: process.pid,
    started: startOf(process.pid),
    command: 'lab run iscsi',
    since: 'now',
  }
  await writeFile(join(desk.state, '.iscsi.lock'), JSON.stringify(holder))
  return desk
}

const until = async <T>(look: () => Promise<T | undefined>): Promise<T> => {
  for (;;) {
    const found = await look().catch(() => undefined)
    if (found !== undefined) return found
    await delay(50)
  }
}

/** A command in a terminal of its own, below a shell that passes on signals to its jobs, as shells do. */
class Terminal {
  readonly #desk: Desk
  readonly #child: ChildProcess

  constructor(desk: Desk, words: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#desk = desk
    const command = [process.execPath, cli, ...words].map(quote).join(' ')
    const line = `${command} & trap "kill -HUP $!" HUP; wait $!; wait $!; echo $? > ${this.#path('code')}`
    this.#child = spawn('script', ['--quiet', '--flush', '--command', line, this.#path('told')], {
      env: { ...desk.env, ...env },
      cwd: desk.here,
      stdio: 'ignore',
    })
  }

  #path(what: string): string {
    return join(this.#desk.folder, what)
  }

  says(words: string): Promise<true> {
    return until(async () =>
      (await readFile(this.#path('told'), 'utf8')).includes(words) ? true : undefined,
    )
  }

  /** The terminal disappears with this process: a program that reads or writes there gets an error. */
  close(): void {
    this.#child.kill('SIGKILL')
  }

  exitCode(): Promise<number> {
    return until(async () => {
      const code = (await readFile(this.#path('code'), 'utf8')).trim()
      return code === '' ? undefined : Number(code)
    })
  }
}

describe.runIf(process.platform === 'linux')('a command whose terminal is closed', () => {
  test.each([
    { verb: 'up' },
    { verb: 'down' },
    { verb: 'prepare' },
    { verb: 'stop' },
    { verb: 'power', words: ['target', 'off'] },
    { verb: 'snapshot', words: ['one'] },
    { verb: 'restore', words: ['one'] },
  ])(
    'lab $verb that waits for another command ends with 130 and leaves no lock behind when its terminal is closed',
    async ({ verb, words = [] }) => {
      const desk = await busyDesk()
      await desk.madeBefore('iscsi')
      const terminal = new Terminal(desk, [verb, 'iscsi', ...words, '--wait'])
      await terminal.says('waiting for')
      terminal.close()
      expect(await terminal.exitCode()).toBe(130)
      expect(await readdir(desk.state)).toEqual(['.iscsi.lock', 'iscsi'])
      await desk.close()
    },
  )

  // The parts are made by mmdebstrap, from a mirror that never answers.
  test.runIf(existsSync('/usr/bin/mmdebstrap'))(
    'lab prepare ends with 130 when its terminal is closed, leaves nothing half made, and can be repeated',
    async () => {
      const asked: string[] = []
      const mirror = createServer((socket) => {
        socket.on('error', () => undefined)
        socket.once('data', (request) => asked.push(request.toString().split('\r\n')[0] ?? ''))
      }).listen(0, '127.0.0.1')
      await once(mirror, 'listening')
      const url = `http://127.0.0.1:${(mirror.address() as AddressInfo).port}/debian`
      const desk = new Desk()
      for (const round of [1, 2]) {
        await rm(join(desk.folder, 'code'), { force: true })
        const terminal = new Terminal(desk, ['prepare', 'iscsi'], {
          LAB_DEBIAN_MIRROR: url,
          LAB_DEBIAN_SECURITY_MIRROR: url,
        })
        await until(async () => (asked.length >= round ? true : undefined))
        terminal.close()
        expect(await terminal.exitCode()).toBe(130)
        const left = await readdir(desk.cache, { recursive: true })
        expect(left.filter((path) => /asking|building|\/parts\//.test(path))).toEqual([])
        expect(await readdir(desk.state)).toEqual([])
        // Neither do the programs that it started.
        const working = allProcesses().filter(({ pid }) =>
          argumentsOf(pid).some((word) => word.includes(desk.cache)),
        )
        expect(working).toEqual([])
      }
      mirror.close()
      await desk.close()
    },
  )
})

test.each<{ signals: readonly NodeJS.Signals[] }>([
  { signals: ['SIGHUP'] },
  // As below `timeout` and npm, which pass on what the terminal sends to all.
  { signals: ['SIGINT', 'SIGINT'] },
  { signals: ['SIGHUP', 'SIGHUP'] },
  { signals: ['SIGTERM', 'SIGHUP'] },
  { signals: ['SIGHUP', 'SIGTERM'] },
])('$signals count as one request to stop, and lab cleans up what it began', async ({ signals }) => {
  const desk = await busyDesk()
  const child = spawn(process.execPath, [cli, 'up', 'iscsi', '--wait'], { env: desk.env, cwd: desk.here })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  await until(async () => (said.includes('waiting for') ? true : undefined))
  for (const signal of signals) child.kill(signal)
  const [code] = await new Promise<[number | null]>((resolve) => child.once('exit', (end) => resolve([end])))
  expect(code).toBe(130)
  expect(said.match(/interrupted: stopping/g)).toHaveLength(1)
  expect(await readdir(desk.state)).toEqual(['.iscsi.lock'])
  await desk.close()
})
