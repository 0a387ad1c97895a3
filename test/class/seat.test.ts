/** A seat in real namespaces, without its lab: as root. */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdir, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterEach, expect, test, vi } from 'vitest'
import type { ClassFile } from '../../src/class/class.js'
import { openingCommand } from '../../src/class/namespaces.js'
import { atSeat } from '../../src/class/seat.js'
import { temporaryFolder } from '../helpers/folder.js'

const account = { name: 'lab-iscsi-07', uid: 54_321, gid: 54_321 }
const seat = { class: { lab: 'iscsi' } as ClassFile, id: '07' }

const opened: ChildProcess[] = []
afterEach(async () => {
  vi.unstubAllEnvs()
  for (const child of opened.splice(0)) {
    const ended = new Promise((resolve) => child.once('exit', resolve))
    // The end of the first process is the end of the namespaces.
    await execa('pkill', ['-KILL', '--parent', String(child.pid)], { reject: false })
    await ended
  }
})

/** The pid of the first process of a new seat. */
const openedSeat = async (): Promise<number> => {
  const folder = await temporaryFolder()
  const [root, home, cache] = [join(folder, 'root'), join(folder, 'home'), join(folder, 'cache')]
  for (const name of [root, home, cache]) await mkdir(name)
  await execa('chown', [String(account.uid), home])
  vi.stubEnv('LAB_CACHE', cache)
  const [program = '', ...words] = await openingCommand({ root, home, account, labFile: undefined })
  const number = await open(join(folder, 'pid'), 'w')
  opened.push(spawn(program, words, { stdio: ['ignore', 'ignore', 'inherit', number.fd] }))
  await number.close()
  return vi.waitFor(
    async () => {
      const text = await readFile(join(folder, 'pid'), 'utf8')
      expect(text).toMatch(/^\d+\n$/)
      return Number(text)
    },
    { timeout: 20_000 },
  )
}

test.runIf(process.getuid?.() === 0)(
  'a command at a seat begins in a folder of the seat, so it neither complains nor shows a folder of the host',
  async () => {
    const pid = await openedSeat()
    const [program, ...words] = atSeat(seat, pid, account, ['sh', '-c', 'pwd; cd - >/dev/null; ls -x'])
    const { stdout, stderr } = await execa(program, words)
    expect(stderr).toBe('')
    expect(stdout.split('\n')[0]).toBe('/home/lab-iscsi-07')
    expect(stdout).not.toMatch(/\bboot\b/)
  },
  60_000,
)
