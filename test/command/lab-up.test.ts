/** Commands at a lab that is up, and at one that another command is changing. */
import { mkdir, readFile, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, test, vi } from 'vitest'
import { cli, type Desk, dist } from '../helpers/cli.js'
import { expectOneError, labFile, newDesk } from './cli.js'

// Each test starts one or more processes, which take half a second of CPU each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

describe.concurrent('a lab that is up', () => {
  test.each<{ line: string; says: RegExp }>([
    { line: 'ssh worker9', says: /iscsi has no machine worker9\n +Hint: one of: target, initiator\n/ },
    { line: 'ssh worker9 -- true', says: /iscsi has no machine worker9/ },
    {
      line: 'exec worker9 -- true',
      says: /no machine and no role worker9\n +Hint: one of: target, initiator, control-plane, worker, nfs, all\n/,
    },
    {
      line: 'logs worker9',
      says: /iscsi has no machine worker9\n +Hint: its machines: target, initiator\n/,
    },
    { line: 'forward worker9:22', says: /iscsi has no machine worker9/ },
    {
      line: 'forward target',
      says: /target is not MACHINE:PORT\n +Hint: lab forward iscsi target:22\n/,
    },
    { line: 'forward target:65536', says: /target:65536 is not MACHINE:PORT/ },
    { line: 'forward target:22 --port ssh', says: /--port ssh: expected a port from 0 to 65535/ },
    {
      line: 'cp one two',
      says: /neither path is on a machine\n +Hint: lab cp iscsi \.\/file target:\/root\/\n/,
    },
    { line: 'cp target:/etc/hosts', says: /expected two paths/ },
    { line: 'cp one worker9:/root/', says: /iscsi has no machine worker9/ },
    { line: 'kubectl get pods', says: /iscsi has no Kubernetes/ },
    {
      line: 'up --provider libvirt',
      says: /iscsi was brought up with uml, not libvirt\n +Hint: lab down iscsi\n/,
    },
  ])('lab $line names what does not exist', async ({ line, says }) => {
    const desk = newDesk()
    await desk.madeBefore('iscsi')
    const [command = '', ...more] = line.split(' ')
    const ran = await desk.lab([command, 'iscsi', ...more])
    expectOneError(ran, says)
    expect(ran.exitCode).toBe(2)
    expect(desk.contents()).toEqual(['state/iscsi', 'state/iscsi/provider'])
  })

  test('lab logs continues with the rotated console log', async () => {
    const desk = newDesk()
    await mkdir(join(desk.state, 'iscsi', 'machines', 'target'), { recursive: true })
    await desk.madeBefore('iscsi', {
      'machines/target/console.log.1': 'one\ntwo\n',
      'machines/target/console.log': 'three\n',
    })
    expect((await desk.lab(['logs', 'iscsi', 'target', '-n', '2'])).stdout).toBe('two\nthree\n')
  })

  test('lab events prints the kept events, and Ctrl-C ends --follow', async () => {
    const desk = newDesk()
    const record = {
      schema: 'lab.events/v1',
      time: '2026-01-01T00:00:00.000Z',
      type: 'notice',
      text: 'it went',
    }
    await desk.madeBefore('iscsi', { 'events.ndjson': `${JSON.stringify(record)}\n{"torn` })
    expect(await desk.lab(['events', 'iscsi'])).toMatchObject({
      exitCode: 0,
      stdout: '2026-01-01T00:00:00.000Z  notice         it went\n',
    })
    expect(JSON.parse((await desk.lab(['events', 'iscsi', '-o', 'json'])).stdout)).toEqual(record)
    const following = execa(process.execPath, [cli, 'events', 'iscsi', '--follow'], {
      env: desk.env,
      reject: false,
    })
    await once(following.stdout, 'data')
    following.kill('SIGINT')
    expect((await following).exitCode).toBe(130)
  })

  test('lab events says how many steps a run has, also if it is only one', async () => {
    const desk = newDesk()
    const record = {
      time: '2026-01-01T00:00:00.000Z',
      type: 'run-started',
      title: 'Verify iscsi',
      steps: [{ step: 'x' }],
    }
    await desk.madeBefore('iscsi', { 'events.ndjson': `${JSON.stringify(record)}\n` })
    expect((await desk.lab(['events', 'iscsi'])).stdout).toMatch(/ {2}Verify iscsi: 1 step\n$/)
  })

  test('lab events --follow ends when the lab is gone, and says so', async () => {
    const desk = newDesk()
    await desk.madeBefore('iscsi', {
      'events.ndjson': `${JSON.stringify({ time: '2026-01-01T00:00:00.000Z', type: 'notice', text: 'it went' })}\n`,
    })
    const following = execa(process.execPath, [cli, 'events', 'iscsi', '--follow'], {
      env: desk.env,
      reject: false,
      timeout: 60_000,
    })
    await once(following.stdout, 'data')
    await rm(join(desk.state, 'iscsi'), { recursive: true })
    expect(await following).toMatchObject({
      exitCode: 0,
      stderr: `iscsi is gone: its folder ${join(desk.state, 'iscsi')} was removed`,
    })
  })

  test('lab forward refuses a port that is in use', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const desk = newDesk()
      await desk.madeBefore('iscsi')
      const port = String((server.address() as AddressInfo).port)
      const ran = await desk.lab(['forward', 'iscsi', 'target:22', '--port', port])
      expectOneError(ran, new RegExp(`127\\.0\\.0\\.1:${port}: .*EADDRINUSE.*\\n +Hint: .*--port 0\\n`))
      expect(ran.exitCode).toBe(1)
    } finally {
      server.close()
    }
  })

  test('a lab that is up is known by its name, even when its file is gone', async () => {
    const desk = newDesk()
    const text = await readFile(labFile('labs/iscsi.yaml'), 'utf8')
    await desk.madeBefore('mine', { 'lab.yaml': text.replace('name: iscsi', 'name: mine') })
    const ran = await desk.lab(['status', 'mine'])
    expect(ran).toMatchObject({ exitCode: 0, stderr: '' })
    expect(ran.stdout).toMatch(/^mine {2}One iSCSI target/)
    const listed = (await desk.lab(['list'])).stdout
    expect(listed).toMatch(/^mine +made \(uml\)/m)
    expect(listed).toMatch(/^deployment +- .*\n {2}scale +A Deployment of 3 is scaled to 10/m)
    expect(listed).toMatch(/^ {2}power-cut +The node of the database loses its power/m)
    expect((await desk.lab(['down', 'mine'])).stdout).toMatch(/^mine: gone; nothing left/)
    expect(desk.contents()).toEqual([])
  })
})

describe.concurrent('a lab that another command is changing', () => {
  /** Holds the lock of a lab, as `lab up` does for minutes. */
  const hold = async (desk: Desk, lab: string) => {
    const holder = execa(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        `import { takeLock } from '${join(dist, 'lock.js')}'
         const release = await takeLock(process.argv[1], { command: 'lab up ${lab}', signal: new AbortController().signal })
         console.log('has')
         for await (const _ of process.stdin);
         await release()`,
        join(desk.state, `.${lab}.lock`),
      ],
      { reject: false, stdin: 'pipe' },
    )
    await once(holder.stdout, 'data')
    const release = async (): Promise<void> => {
      holder.stdin.end()
      await holder
    }
    return { pid: holder.pid ?? 0, release }
  }

  test.each(['up', 'down', 'stop', 'prepare'])(
    'lab %s names the other command and exits with 4',
    async (command) => {
      const desk = newDesk()
      const holder = await hold(desk, 'iscsi')
      const ran = await desk.lab([command, 'iscsi'])
      expectOneError(
        ran,
        new RegExp(`^✖ lab up iscsi \\(pid ${holder.pid}, since .*\\) is working on this lab\\n`),
      )
      expect(ran.exitCode).toBe(4)
      expect(desk.contents()).toEqual(['state/.iscsi.lock'])
      await holder.release()
    },
  )

  test('--wait waits for the other command and then continues', async () => {
    const desk = newDesk()
    const holder = await hold(desk, 'iscsi')
    const waiting = execa(process.execPath, [cli, 'down', 'iscsi', '--wait'], {
      env: desk.env,
      reject: false,
    })
    const [said] = (await once(waiting.stderr, 'data')) as [Buffer]
    expect(String(said)).toMatch(/waiting for lab up iscsi \(pid \d+/)
    await holder.release()
    expect(await waiting).toMatchObject({ exitCode: 0 })
    expect(desk.contents()).toEqual([])
  })

  test.each(['SIGINT', 'SIGTERM'] as const)('%s ends the wait with exit code 130', async (signal) => {
    const desk = newDesk()
    const holder = await hold(desk, 'iscsi')
    const waiting = execa(process.execPath, [cli, 'down', 'iscsi', '--wait'], {
      env: desk.env,
      reject: false,
    })
    await once(waiting.stderr, 'data')
    waiting.kill(signal)
    const { exitCode, stderr } = await waiting
    expect(exitCode).toBe(130)
    expect(stderr).toContain('✖ interrupted')
    await holder.release()
    expect(desk.contents()).toEqual([])
  })
})
