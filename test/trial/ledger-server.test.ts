/** The server of the plain file, the very program that runs in the database's pod: real files, real fsync. */
import { once } from 'node:events'
import { mkdir, readdir, readFile, symlink, unlink, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { execaSync } from 'execa'
import { expect, onTestFinished, test, vi } from 'vitest'
import { temporaryFolder } from '../helpers/folder.js'
import { ledgerServer } from '../helpers/ledger-server.js'

vi.setConfig({ testTimeout: 20_000 })

interface Talk {
  readonly socket: Socket
  readonly next: () => Promise<string>
  readonly ask: (request: string) => Promise<string>
}

/** A connection that got its greeting. */
const talkTo = async (port: number): Promise<Talk> => {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  onTestFinished(() => {
    socket.destroy()
  })
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]()
  const next = async (): Promise<string> => {
    // A client that hangs up with unread data sends a reset.
    const { value, done } = await lines.next().catch(() => ({ value: '', done: true }))
    return done ? 'hung up' : value
  }
  expect(await next()).toBe('ready pod-1')
  const ask = (request: string): Promise<string> => {
    socket.write(`${request}\n`)
    return next()
  }
  return { socket, next, ask }
}

const serverIn = async (folder: string) => {
  const server = await ledgerServer(folder)
  return { ...server, talk: await talkTo(server.port) }
}

test('the server acknowledges a line with its number and writer once it is in the file', async () => {
  const folder = await temporaryFolder()
  const { talk } = await serverIn(folder)
  expect(await talk.ask('last run_1')).toBe('last pod-1 0 ')
  expect(await readdir(folder)).toEqual([])
  expect(await talk.ask('append run_1 1 line 1 abc')).toBe('ok 1 pod-1')
  expect(await talk.ask('last run_1')).toBe('last pod-1 19 1 pod-1 line 1 abc')
  expect(await talk.ask('append run_1 2 line 2 dé f')).toBe('ok 2 pod-1')
  expect(await talk.ask('last run_1')).toBe('last pod-1 40 2 pod-1 line 2 dé f')
  expect(await readFile(join(folder, 'run_1'), 'utf8')).toBe('1 pod-1 line 1 abc\n2 pod-1 line 2 dé f\n')
  expect(await talk.ask('read run_1')).toBe('line 1 pod-1 line 1 abc')
  expect(await talk.next()).toBe('line 2 pod-1 line 2 dé f')
  expect(await talk.next()).toBe('end 2')
  expect(await talk.ask('remove run_1')).toBe('removed run_1')
  expect(await talk.ask('remove run_1')).toBe('removed run_1')
  expect(await talk.ask('read run_1')).toBe('end 0')
  expect(await readdir(folder)).toEqual([])
})

/** The only child process of another one. */
const childOf = async ({ pid }: { readonly pid?: number | undefined }): Promise<number> =>
  Number((await readFile(`/proc/${String(pid)}/task/${String(pid)}/children`, 'utf8')).trim())

const mayTrace = execaSync('strace', ['-o', '/dev/null', 'true'], { reject: false }).exitCode === 0

test.skipIf(!mayTrace)('the server syncs folder and file before it answers (needs strace)', async () => {
  const folder = await temporaryFolder()
  const trace = join(await temporaryFolder(), 'trace')
  const { process, port } = await ledgerServer(folder, 'pod-1', ['strace', '-y', '-o', trace])
  const { ask } = await talkTo(port)
  expect(await ask('append run 1 one')).toBe('ok 1 pod-1')
  expect(await ask('append run 2 two')).toBe('ok 2 pod-1')
  const exited = once(process, 'exit')
  globalThis.process.kill(await childOf(process), 'SIGTERM')
  await exited
  const calls = (await readFile(trace, 'utf8')).split('\n').flatMap((line) => {
    const [, call, file = '', text] = /^(fsync|write)\(\d+<([^>]*)>(?:, "([^"]*)")?/.exec(line) ?? []
    if (file.startsWith(folder)) return [`${String(call)} ${file.slice(folder.length)}`]
    return text?.startsWith('ok') ? [text] : []
  })
  expect(calls).toEqual([
    'fsync ',
    'write /run',
    'fsync /run',
    'ok 1 pod-1\\n',
    'write /run',
    'fsync /run',
    'ok 2 pod-1\\n',
  ])
})

test('a connection that ends in the middle of a request writes nothing and disturbs no other', async () => {
  const folder = await temporaryFolder()
  const { talk, port } = await serverIn(folder)
  const torn = await talkTo(port)
  torn.socket.end('append run 1 half of a li')
  await once(torn.socket, 'close')
  expect(await talk.ask('append run 2 whole')).toBe('ok 2 pod-1')
  // Gone before it could be answered: the line may be there, and the server still runs.
  const rude = await talkTo(port)
  rude.socket.write('append run 3 whole\nread run\nread run\n')
  rude.socket.resetAndDestroy()
  expect(await talk.ask('append run 4 whole')).toBe('ok 4 pod-1')
  expect(await readFile(join(folder, 'run'), 'utf8')).toMatch(
    /^2 pod-1 whole\n(?:3 pod-1 whole\n)?4 pod-1 whole\n$/,
  )
})

test('every line acknowledged over many connections is in the file once and whole', async () => {
  const folder = await temporaryFolder()
  const { port } = await serverIn(folder)
  // A client that sends nothing, and one that never reads its answers, delay no other client.
  await talkTo(port)
  const deaf = await talkTo(port)
  deaf.socket.pause()
  await writeFile(join(folder, 'large'), `${'x'.repeat(100)}\n`.repeat(100_000))
  deaf.socket.write('read large\n')
  const talks = await Promise.all(Array.from({ length: 8 }, () => talkTo(port)))
  await Promise.all(
    talks.map(async ({ ask }, one) => {
      for (let n = 0; n < 25; n++) {
        const seq = String(one * 25 + n)
        expect(await ask(`append run ${seq} line ${seq}`)).toBe(`ok ${seq} pod-1`)
      }
    }),
  )
  const lines = (await readFile(join(folder, 'run'), 'utf8')).trimEnd().split('\n')
  expect(lines.sort()).toEqual(
    Array.from({ length: 200 }, (_, n) => `${String(n)} pod-1 line ${String(n)}`).sort(),
  )
})

test.each([
  'append ../run 1 x',
  'append .run 1 x',
  'append a/b 1 x',
  'append  1 x',
  `append ${'a'.repeat(101)} 1 x`,
  'append run x x',
  'append run -1 x',
  'append run 1',
  'read ../../etc/passwd',
  'remove ..',
  'remove run more',
  'GET / HTTP/1.1',
  '',
])('the server rejects the request %j and keeps the connection', async (request) => {
  const outer = await temporaryFolder()
  const folder = join(outer, 'folder')
  await mkdir(folder)
  const { talk } = await serverIn(folder)
  expect(await talk.ask(request)).toMatch(/^error expected append RUN SEQ CONTENT/)
  expect(await talk.ask('append run 1 x')).toBe('ok 1 pod-1')
  expect(await readdir(outer)).toEqual(['folder'])
  expect(await readdir(folder)).toEqual(['run'])
})

test('the server does not wait for a request without an end', async () => {
  const { talk, port } = await serverIn(await temporaryFolder())
  talk.socket.write('x'.repeat(100_000))
  expect(await talk.next()).toBe('hung up')
  expect(await (await talkTo(port)).ask('read run')).toBe('end 0')
})

test('a line that a power cut shortened stays on a line of its own', async () => {
  const folder = await temporaryFolder()
  await writeFile(join(folder, 'run'), '1 pod-0 line 1\n2 pod-0 li')
  const { talk } = await serverIn(folder)
  expect(await talk.ask('append run 3 line 3')).toBe('ok 3 pod-1')
  expect(await talk.ask('append run 4 line 4')).toBe('ok 4 pod-1')
  expect(await readFile(join(folder, 'run'), 'utf8')).toBe(
    '1 pod-0 line 1\n2 pod-0 li\n3 pod-1 line 3\n4 pod-1 line 4\n',
  )
})

test('after a failed fsync the server acknowledges nothing more for that file, but does for others', async () => {
  const folder = await temporaryFolder()
  const { talk, port } = await serverIn(folder)
  // Accepts every byte, but cannot sync.
  await symlink('/dev/null', join(folder, 'run'))
  expect(await talk.ask('append run 1 x')).toBe('error fsync: Invalid argument')
  // It seems healthy again: a new file is in its place.
  await unlink(join(folder, 'run'))
  const wanted = 'error nothing is promised for run any more, after fsync: Invalid argument'
  expect(await talk.ask('append run 2 x')).toBe(wanted)
  expect(await (await talkTo(port)).ask('append run 3 x')).toBe(wanted)
  expect(await talk.ask('append other 1 x')).toBe('ok 1 pod-1')
})

/** Whether this user may mount in a namespace of their own. */
const mayMount = execaSync('unshare', ['--mount', 'true'], { reject: false }).exitCode === 0

test.skipIf(!mayMount)(
  'on a full disk the server acknowledges nothing, leaves no partial line, and continues when there is space (needs root to mount)',
  async () => {
    const folder = await temporaryFolder()
    const mounted = 'mount -t tmpfs -o size=64k lab "$0" && exec "$@"'
    const { port } = await ledgerServer(folder, 'pod-1', ['unshare', '--mount', 'sh', '-c', mounted, folder])
    const talk = await talkTo(port)
    const content = 'x'.repeat(999)
    const answers: string[] = []
    for (let seq = 1; seq <= 80; seq++) answers.push(await talk.ask(`append run ${String(seq)} ${content}`))
    const acknowledged = answers.flatMap((answer) => /^ok (\d+) pod-1$/.exec(answer)?.[1] ?? [])
    const errors = answers.filter((answer) => answer.startsWith('error write: '))
    expect(acknowledged.length).toBeGreaterThan(30)
    expect(errors.length).toBeGreaterThan(10)
    expect(acknowledged.length + errors.length).toBe(80)
    const lines: string[] = []
    let line = await talk.ask('read run')
    for (; line.startsWith('line '); line = await talk.next()) lines.push(line)
    expect(line).toBe(`end ${String(acknowledged.length)}`)
    expect(lines).toEqual(acknowledged.map((seq) => `line ${seq} pod-1 ${content}`))
    expect(await talk.ask('remove run')).toBe('removed run')
    expect(await talk.ask('append run 81 x')).toBe('ok 81 pod-1')
  },
)

test('SIGTERM ends the server at once, even with open connections', async () => {
  const { talk, stop } = await serverIn(await temporaryFolder())
  expect(await talk.ask('append run 1 x')).toBe('ok 1 pod-1')
  const begun = performance.now()
  expect(await stop()).toBe(0)
  expect(performance.now() - begun).toBeLessThan(10_000)
})

test.skipIf(!mayMount)(
  'SIGTERM ends the server as the first process of a container (needs root)',
  async () => {
    const { process, port } = await ledgerServer(await temporaryFolder(), 'pod-1', [
      'unshare',
      '--pid',
      '--fork',
    ])
    await talkTo(port)
    const exited = once(process, 'exit')
    const begun = performance.now()
    globalThis.process.kill(await childOf(process), 'SIGTERM')
    expect(await exited).toEqual([0, null])
    expect(performance.now() - begun).toBeLessThan(10_000)
  },
)
