/** A terminal is closed while a command works: the command ends cleanly, as on Ctrl-C. */
import { spawn } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { quote } from '../../src/machine/sh.js'
import { cli, Desk } from '../helpers/cli.js'

vi.setConfig({ testTimeout: 120_000 })

const startTime = async (pid: number): Promise<string> => {
  const text = await readFile(`/proc/${String(pid)}/stat`, 'utf8')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}

/** A desk where another command, this test, holds the lab. */
const busyDesk = async (): Promise<Desk> => {
  const desk = new Desk()
  const holder = {
    pid: process.pid,
    started: await startTime(process.pid),
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

test.runIf(process.platform === 'linux')(
  'lab up ends with 130 and leaves no lock behind when its terminal is closed',
  async () => {
    const desk = await busyDesk()
    const [code, told] = [join(desk.folder, 'code'), join(desk.folder, 'told')]
    // As a shell does for its jobs: it passes the signal on, and waits for them to end.
    const line = `${quote(process.execPath)} ${quote(cli)} up iscsi --wait & trap "kill -HUP $!" HUP; wait $!; wait $!; echo $? > ${code}`
    const terminal = spawn('script', ['--quiet', '--flush', '--command', line, told], {
      env: desk.env,
      cwd: desk.here,
      stdio: 'ignore',
    })
    await until(async () => ((await readFile(told, 'utf8')).includes('waiting for') ? true : undefined))
    // The terminal disappears with it: a process that reads or writes there gets an error.
    terminal.kill('SIGKILL')
    expect(await until(async () => (await readFile(code, 'utf8')) || undefined)).toBe('130\n')
    expect(await readdir(desk.state)).toEqual(['.iscsi.lock'])
    await desk.close()
  },
)

test.each<{ signals: readonly NodeJS.Signals[] }>([
  { signals: ['SIGHUP'] },
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
