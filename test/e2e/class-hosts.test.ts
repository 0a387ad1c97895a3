/**
 * A class on two hosts. The other host is a network namespace with classes of its own, which are reached by SSH like a
 * real host: this one and it share the kernel, the files and the accounts, and nothing of the class.
 */
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { once } from 'node:events'
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import type { Board } from '../../src/class/board.js'
import { readRoster } from '../../src/class/roster.js'
import { clientKeys, TestSshServer } from '../helpers/ssh-server.js'
import { Classroom } from './classroom.js'
import { cli } from './lab.js'

const root = process.getuid?.() === 0
const port = 8653
const namespace = 'lab-class-blue'
const [here, there] = ['10.213.7.1', '10.213.7.2']
const [link, peer] = ['labblue0', 'labblue1']

const ip = (...words: readonly string[]) => execa('ip', words, { stdin: 'ignore' })

/** Passes connections to an SSH port of the namespace on to a socket of the test. */
const passOn = `
const { connect, createServer } = require('node:net')
createServer((socket) => {
  const other = connect(process.argv[1])
  socket.on('error', () => other.destroy()).pipe(other).on('error', () => socket.destroy()).pipe(socket)
}).listen(22, '${there}', () => process.stdout.write('listening'))`

describe.runIf(root)('lab class on two hosts', () => {
  let room: Classroom
  /** Of the other host. */
  let blue: string
  let ssh: TestSshServer
  let forwarder: ChildProcess | undefined
  const up = (count: number): readonly string[] => [
    ...['up', 'iscsi', '--count', String(count), '--size', 'small', '--listen', `0.0.0.0:${String(port)}`],
    ...['--address', here, '--hosts', join(blue, 'hosts.yaml'), '--offline'],
  ]
  const onBlue = (...words: readonly string[]) =>
    execa('ip', ['netns', 'exec', namespace, process.execPath, cli, 'class', ...words], {
      env: { LAB_CLASSES: join(blue, 'classes') },
      reject: false,
      stdin: 'ignore',
    })
  const boardNow = async (): Promise<Board> => JSON.parse(await room.ok('status', '-o', 'json')) as Board

  beforeAll(async () => {
    room = await Classroom.open('iscsi', port)
    blue = await mkdtemp('/var/tmp/lab-blue-')
    await mkdir(join(blue, 'bin'))
    await symlink(cli, join(blue, 'bin', 'lab'))
    await ip('netns', 'add', namespace)
    await ip('link', 'add', link, 'type', 'veth', 'peer', 'name', peer, 'netns', namespace)
    await ip('address', 'add', `${here}/30`, 'dev', link)
    await ip('link', 'set', link, 'up')
    for (const words of [
      ['address', 'add', `${there}/30`, 'dev', peer],
      ['link', 'set', peer, 'up'],
      ['link', 'set', 'lo', 'up'],
    ])
      await ip('-n', namespace, ...words)
    ssh = new TestSshServer(join(blue, 'sshd.sock'))
    ssh.instead = (channel, command) => {
      const child = spawn('ip', ['netns', 'exec', namespace, 'sh', '-c', command], {
        env: {
          PATH: `${join(blue, 'bin')}:${process.env['PATH'] ?? ''}`,
          HOME: process.env['HOME'],
          LAB_CLASSES: join(blue, 'classes'),
        },
      })
      channel.pipe(child.stdin)
      child.stdin.on('error', () => undefined)
      child.stdout.pipe(channel, { end: false })
      child.stderr.pipe(channel.stderr, { end: false })
      child.once('close', (code) => {
        channel.exit(code ?? 1)
        channel.end()
      })
    }
    await ssh.listen()
    forwarder = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', passOn, ssh.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(forwarder.stdout!, 'data')
    await writeFile(join(blue, 'key'), clientKeys.privateKey, { mode: 0o600 })
    await writeFile(
      join(blue, 'hosts.yaml'),
      [
        'apiVersion: lab.hosts/v1',
        'hosts:',
        `  blue: { address: ${there}, user: root, key: ${join(blue, 'key')}, hostKey: ssh-ed25519 ${ssh.endpoint().hostKey} }`,
        '',
      ].join('\n'),
    )
  })

  afterAll(async () => {
    ssh.full = false
    try {
      await room.close()
      await onBlue('down', '--wait')
    } finally {
      forwarder?.kill('SIGKILL')
      await ssh.stop()
      await ip('netns', 'delete', namespace)
      await rm(blue, { recursive: true, force: true })
    }
  }, 180_000)

  it('a class of several hosts is refused before anything is made if a host cannot take part', async () => {
    const file = join(blue, 'hosts.yaml')
    const text = await readFile(file, 'utf8')
    const refused: readonly (readonly [string, readonly string[], RegExp])[] = [
      [text, [...up(2), '--listen', `127.0.0.1:${String(port)}`], /must be reachable from outside/],
      [text.replace(there, '10.213.7.3'), up(2), /10\.213\.7\.3/],
      [text, up(99), /99 more seats do not fit on these hosts:\n.*this host: .*\n.*blue: room for/],
      ['', up(2), /is empty/],
    ]
    for (const [written, words, says] of refused) {
      await writeFile(file, written)
      const said = await room.run(...words)
      expect(said.exitCode, says.source).not.toBe(0)
      expect(said.stderr).toMatch(says)
    }
    await writeFile(file, text)
    await rm(join(blue, 'bin', 'lab'))
    expect((await room.run(...up(2))).stderr).toMatch(/blue \(10\.213\.7\.2\): there is no command lab/)
    await symlink(cli, join(blue, 'bin', 'lab'))
    expect([existsSync(room.root), existsSync(join(blue, 'classes', 'iscsi'))]).toEqual([false, false])
  }, 180_000)

  it('a class that is interrupted while the other host makes its part can be ended, and leaves nothing on either', async () => {
    const running = room.start(...up(2))
    await expect.poll(() => existsSync(join(room.root, 'roster.json')), { timeout: 120_000 }).toBe(true)
    running.kill('SIGINT')
    expect((await running).exitCode).toBe(130)
    expect(await room.ok('down')).toContain('2 seats, 0 left')
    expect([existsSync(room.root), existsSync(join(blue, 'classes', 'iscsi'))]).toEqual([false, false])
  }, 300_000)

  it('each host gets a seat, and one board shows both', async () => {
    expect(await room.ok(...up(2))).toContain('2 of 2 seats of iscsi are up')
    const { seats } = await boardNow()
    expect(seats.map(({ id, status }) => [id, status])).toEqual([
      ['01', 'ready'],
      ['02', 'ready'],
    ])
    expect(seats[1]?.detail).toMatch(/^blue: up in/)
    expect((await room.file()).seats.map(({ id }) => id)).toEqual(['01'])
    expect(existsSync(join(room.root, 'seats', '02'))).toBe(false)
    expect(existsSync(join(blue, 'classes', 'iscsi', 'seats', '02', 'pid'))).toBe(true)
  }, 300_000)

  it('every seat is ready through the address of its card, which is the address of its host', async () => {
    expect(await room.ok('verify')).toContain('2 of 2 seats are ready')
    const cards = await readFile(join(room.root, 'cards.html'), 'utf8')
    expect(cards).toContain(`https://${here}:${String(port)}/`)
    expect(cards).toContain(`https://${there}:${String(port)}/`)
  }, 180_000)

  it('the teacher watches a terminal on the other host through the gateway here', async () => {
    const socket = new WebSocket(
      `wss://127.0.0.1:${String(port)}/terminal?seat=02&mode=join&session=second`,
      {
        ca: await room.certificate(),
        headers: { cookie: await room.cookie('teacher'), origin: `https://127.0.0.1:${String(port)}` },
      },
    )
    let shown = ''
    socket.on('message', (data: Buffer) => (shown += data.toString()))
    await once(socket, 'open')
    socket.send(Buffer.from('echo I am at $LAB_SEAT\r'))
    await expect.poll(() => shown, { timeout: 60_000 }).toContain('I am at 02')
    socket.close()
  }, 90_000)

  it('a seat on the other host is reset from here, and the class is extended on both', async () => {
    expect(await room.ok('reset', '2')).toContain('seat 02 is new again')
    await room.ok('extend', '30')
    const { until } = await room.file()
    const text = await readFile(join(blue, 'classes', 'iscsi', 'class.json'), 'utf8')
    expect((JSON.parse(text) as { until: string }).until).toBe(until)
    expect((await readRoster('iscsi'))?.elsewhere[0]?.class.until).toBe(until)
  }, 300_000)

  it('a host that does not answer keeps the class from ending, and a second attempt ends all of it', async () => {
    ssh.full = true
    const refused = await room.run('down')
    expect(refused.exitCode).not.toBe(0)
    expect(refused.stderr).toMatch(/blue/)
    expect(existsSync(room.root)).toBe(true)
    ssh.full = false
    expect(await room.ok('down')).toContain('2 seats, 0 left')
    expect([existsSync(room.root), existsSync(join(blue, 'classes', 'iscsi'))]).toEqual([false, false])
    for (const seat of ['01', '02'])
      expect((await execa('getent', ['passwd', `lab-iscsi-${seat}`], { reject: false })).exitCode).not.toBe(0)
  }, 180_000)
})
