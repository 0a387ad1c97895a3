/** The built command line as users run it: their mistakes, what it tells them, and what it leaves behind. */
import { copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { createServer, connect, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { describe, expect, test, vi } from 'vitest'
import { shippedNames } from '../../src/lab/shipped.js'
import { cli, type Desk, desks, dist, type Ran } from '../helpers/cli.js'
import { underTerminal } from '../view/terminal.js'

// Each test starts one or more processes, which take half a second of CPU each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

const repository = fileURLToPath(new URL('../..', import.meta.url))
const labFile = (path: string): string => join(repository, path)

const newDesk = desks()

/** One error for people: on standard error only, without a stack trace, and nothing on standard output. */
const expectOneError = ({ stdout, stderr }: Ran, says: string | RegExp): void => {
  expect(stderr).toMatch(says)
  expect(stderr.split('\n').filter((line) => /^(✖|error:)/.test(line))).toHaveLength(1)
  expect(stderr).not.toMatch(/defect of lab|^ +at /m)
  expect(stdout).toBe('')
}

/** Every command that takes a lab, with the words that it needs after the lab's name. */
const commandsOfLabs: readonly (readonly [command: string, ...more: string[]])[] = [
  ['up'],
  ['down'],
  ['stop'],
  ['start'],
  ['status'],
  ['verify'],
  ['plan'],
  ['validate'],
  ['render'],
  ['prepare'],
  ['ssh', 'target'],
  ['exec', 'all', '--', 'true'],
  ['cp', 'file', 'target:/root/'],
  ['kubectl', '--', 'get', 'nodes'],
  ['logs', 'target'],
  ['events'],
  ['forward', 'target:22'],
  ['run', 'drain'],
  ['power', 'target', 'status'],
  ['heal'],
  ['report'],
]

describe.concurrent('a wrong command line', () => {
  test.each<{ line: string; says: RegExp }>([
    { line: 'nonsense', says: /^error: unknown command 'nonsense'$/m },
    { line: 'validat iscsi', says: /unknown command 'validat'\n\(Did you mean validate\?\)/ },
    { line: 'up', says: /missing required argument 'lab'/ },
    { line: 'ssh iscsi', says: /missing required argument 'machine'/ },
    {
      line: 'exec iscsi all --',
      says: /no command for all\n +Hint: lab exec iscsi all -- uptime/,
    },
    { line: 'list iscsi', says: /too many arguments for 'list'/ },
    { line: 'up iscsi --nonsense', says: /unknown option '--nonsense'/ },
    {
      line: 'up iscsi --evnts',
      says: /unknown option '--evnts'\n\(Did you mean --events\?\)/,
    },
    { line: '--verbose list', says: /unknown option '--verbose'/ },
    {
      line: 'up iscsi --provider nonsense',
      says: /'nonsense' is invalid.*uml, libvirt, virtualbox/,
    },
    { line: 'list -o yaml', says: /'yaml' is invalid.*text, json/ },
    { line: 'completion tcsh', says: /no completion for tcsh\n +Hint: one of: bash, zsh, fish/ },
    { line: 'init My_Lab', says: /a lab cannot have this name: "My_Lab"/ },
    { line: 'init good --from iscsi_ha', says: /no lab named iscsi_ha; did you mean iscsi-ha\?/ },
    {
      line: 'run deployment scale --on iscsi',
      says: /deployment cannot run on iscsi: it has no Kubernetes/,
    },
    {
      line: 'run wordpress --all --on statefulset',
      says: /cannot run on statefulset: its experiments are about what lab up deploys/,
    },
    { line: 'run deployment scale --on iscsi-ha', says: /its nodes have no docker.io.library.nginx:1.22/ },
    {
      line: 'run deployment scal --on statefulset',
      says: /has no scenario scal; did you mean scale\?/,
    },
    { line: 'power iscsi target of', says: /of: expected on, off, cycle or status/ },
    { line: 'power iscsi targt off', says: /iscsi has no machine targt\n +Hint: one of: target, initiator/ },
    { line: 'logs iscsi target -n many', says: /--lines many: expected a number/ },
  ])('lab $line exits with 2, names the mistake and makes nothing', async ({ line, says }) => {
    const desk = newDesk()
    const ran = await desk.lab(line.split(' '))
    expectOneError(ran, says)
    expect(ran.exitCode).toBe(2)
    expect(desk.contents()).toEqual([])
  })

  test('lab without arguments prints the help as an error', async () => {
    const { exitCode, stdout, stderr } = await newDesk().lab([])
    expect(stderr).toMatch(/^Usage: lab /)
    expect(stdout).toBe('')
    expect(exitCode).toBe(2)
  })

  test.each(commandsOfLabs)('lab %s refuses an unknown lab', async (command, ...more) => {
    const desk = newDesk()
    const ran = await desk.lab([command, 'iscsi-hq', ...more])
    expectOneError(ran, /^✖ no lab named iscsi-hq; did you mean iscsi-ha\?\n +Hint: lab list shows them\n$/)
    expect(ran.exitCode).toBe(2)
    expect(desk.contents()).toEqual([])
  })
})

describe.concurrent('a wrong lab file', () => {
  const takers = ['up', 'plan', 'validate', 'render', 'prepare'] as const

  test.each(['up', 'validate'])('lab %s refuses a file that does not exist', async (command) => {
    const desk = newDesk()
    const ran = await desk.lab([command, './none.yaml'])
    expectOneError(ran, /^✖ \.\/none\.yaml {2}cannot be read: there is no such file\n +Hint: /)
    expect(ran.exitCode).toBe(2)
    expect(desk.contents()).toEqual([])
  })

  test.each(takers)(
    'lab %s reports every problem at once, with its place in a form that editors understand',
    async (command) => {
      const desk = newDesk()
      await copyFile(labFile('test/lab/invalid/unknown-fields.yaml'), join(desk.here, 'mine.yaml'))
      const ran = await desk.lab([command, 'mine.yaml'])
      const wanted = await readFile(labFile('test/lab/invalid/unknown-fields.txt'), 'utf8')
      const lines = wanted
        .replaceAll('test/lab/invalid/unknown-fields.yaml', 'mine.yaml')
        .trimEnd()
        .split('\n')
      expect(lines.length).toBeGreaterThan(5)
      expectOneError(ran, `✖ ${lines.join('\n  ')}\n  Hint: lab validate mine.yaml\n`)
      expect(ran.exitCode).toBe(2)
      expect(desk.contents()).toEqual(['here/mine.yaml'])
    },
  )

  test('a file that is not YAML is reported with file, line and column, and the line with a mark', async () => {
    const desk = newDesk()
    await copyFile(labFile('test/lab/invalid/yaml-tab.yaml'), join(desk.here, 'mine.yaml'))
    const ran = await desk.lab(['validate', './mine.yaml', '-o', 'json'])
    expectOneError(ran, /^✖ \.\/mine\.yaml:4:1 {2}a tab; .*\n +4 \| .*\n +\| \^\n/)
    expect(ran.exitCode).toBe(2)
  })

  test('a lab that needs more memory than the host has exits with 3 before anything changes', async () => {
    const desk = newDesk()
    const text = await readFile(labFile('labs/iscsi.yaml'), 'utf8')
    await writeFile(join(desk.here, 'big.yaml'), text.replaceAll('512MiB', '1TiB'))
    const ran = await desk.lab(['up', 'big.yaml', '--provider', 'uml'])
    expectOneError(
      ran,
      /^✖ the machines of iscsi need 2048\.0 GiB of memory, but only .* GiB are free\n +Hint: /,
    )
    expect(ran.exitCode).toBe(3)
    expect(desk.contents()).toEqual(['here/big.yaml'])
  })
})

describe.concurrent('a lab that is not up', () => {
  const needIt = commandsOfLabs.filter(
    ([command]) => !['up', 'down', 'plan', 'validate', 'render', 'prepare', 'report'].includes(command),
  )

  test.each(needIt)('lab %s refuses a lab that is not up', async (command, ...more) => {
    const desk = newDesk()
    const ran = await desk.lab([command, 'iscsi-ha', ...more])
    expectOneError(ran, /^✖ iscsi-ha is not up\n +Hint: lab up iscsi-ha\n$/)
    expect(ran.exitCode).toBe(1)
    expect(desk.contents()).toEqual([])
  })

  test('lab report says that there is no report', async () => {
    const desk = newDesk()
    const ran = await desk.lab(['report', 'iscsi-ha'])
    expectOneError(
      ran,
      /latest\/report\.json: contains no report\n +Hint: lab run LAB SCENARIO writes one\n$/,
    )
    expect(ran.exitCode).toBe(2)
  })

  test.each<{ line: string; says: RegExp }>([
    {
      line: 'iscsi-ha powercut',
      says: /^✖ iscsi-ha has no scenario powercut; did you mean power-cut\?\n +drain +The node/,
    },
    { line: 'iscsi-ha', says: /^✖ which scenario of iscsi-ha\?\n +drain/ },
    { line: 'iscsi-ha drain --all', says: /^✖ --all and names of scenarios exclude each other\n/ },
    { line: 'iscsi --all', says: /^✖ iscsi has no scenarios and no experiments\n/ },
  ])('lab run $line names the mistake', async ({ line, says }) => {
    const desk = newDesk()
    const ran = await desk.lab(['run', ...line.split(' ')])
    expectOneError(ran, says)
    expect(ran.exitCode).toBe(2)
    expect(desk.contents()).toEqual([])
  })

  test('lab down succeeds on a lab that is not up', async () => {
    const desk = newDesk()
    const ran = await desk.lab(['down', 'iscsi'])
    expect(ran).toMatchObject({ exitCode: 0, stderr: '' })
    expect(ran.stdout).toMatch(/^iscsi: was not up; nothing left/)
    expect(desk.contents()).toEqual([])
  })

  test('lab plan prints what lab up would do, and creates no key, secret or machine', async () => {
    const desk = newDesk()
    const ran = await desk.lab(['plan', 'iscsi'])
    expect(ran).toMatchObject({ exitCode: 0, stderr: '' })
    expect(ran.stdout).toMatch(/~ Boot target \[target\]\n +because target runs as the lab file says: no: /)
    expect(desk.contents()).toEqual([])
  })

  test.each(['virtualbox', 'libvirt'])(
    'lab plan and lab up exit with 3 for %s when that provider is not installed',
    async (kind) => {
      const desk = newDesk()
      const nothing = { PATH: desk.here }
      const plan = await desk.lab(['plan', 'iscsi', '--provider', kind], nothing)
      expect(plan.stdout).toMatch(
        /^✖ vagrant --version: not found in PATH\n +Hint: .+\n(.*\n)*✖ (VBoxManage|virsh) /,
      )
      expect(plan.exitCode).toBe(3)
      const up = await desk.lab(['up', 'iscsi', '--provider', kind], nothing)
      expectOneError(
        up,
        /^✖ vagrant --version: not found in PATH\n +(VBoxManage|virsh) --version: not found in PATH/,
      )
      expect(up.exitCode).toBe(3)
      expect(desk.contents()).toEqual([])
    },
  )
})

describe.concurrent('a box that does not exist yet', () => {
  /** Stand-ins for a host that has Vagrant and libvirt, but nothing to build a box with. */
  const withLibvirt = async () => {
    const desk = newDesk()
    const bin = join(desk.folder, 'bin')
    await mkdir(bin)
    for (const [name, version] of [
      ['vagrant', 'Vagrant 2.4.9'],
      ['virsh', '9.0.0'],
    ] as const)
      await writeFile(join(bin, name), `#!/bin/sh\n[ "$1" != --version ] || echo ${version}\n`, {
        mode: 0o755,
      })
    return { desk, env: { PATH: bin } }
  }
  const asked = /^Vagrant has no box lab\/debian-13 [\d.]+ for libvirt\. Build it now, .* \[Y\/n\] /m
  const began = /✖ (missing on this host|this host lacks).* mmdebstrap/

  test('lab up says what to type and builds nothing when there is no terminal', async () => {
    const { desk, env } = await withLibvirt()
    const ran = await desk.lab(['up', 'iscsi', '--provider', 'libvirt'], env)
    expectOneError(
      ran,
      /^✖ iscsi: Vagrant has no box lab\/debian-13 [\d.]+ for libvirt, and there is no terminal to ask .*\n +Hint: lab box build --provider libvirt, then try again; or in one step: lab up iscsi --provider libvirt --yes\n$/,
    )
    expect(ran.exitCode).toBe(3)
    expect(desk.contents().filter((path) => !path.startsWith('bin/'))).toEqual([])
  })

  test('lab up --yes and lab prepare begin to build a missing box', async () => {
    const { desk, env } = await withLibvirt()
    for (const words of [
      ['up', 'iscsi', '--provider', 'libvirt', '--yes'],
      ['prepare', 'iscsi', '--provider', 'libvirt'],
    ])
      expectOneError(await desk.lab(words, env), began)
  })

  test.each([
    { answer: 'y', builds: true },
    { answer: '', builds: true },
    { answer: 'no', builds: false },
    { answer: undefined, builds: false },
  ])('lab up asks at a terminal before it builds a box: $answer', async ({ answer, builds }) => {
    const { desk, env } = await withLibvirt()
    const input = answer === undefined ? ':' : `echo ${answer}`
    const { stdout } = await desk.run(
      '/bin/sh',
      ['-c', `${input} | /usr/bin/script -qec "$LINE" /dev/null`],
      {
        ...env,
        SHELL: '/bin/sh',
        NO_COLOR: '1',
        LINE: `'${process.execPath}' '${cli}' up iscsi --provider libvirt`,
      },
    )
    const said = stdout.replaceAll('\r', '')
    expect(said).toMatch(asked)
    if (builds) expect(said).toMatch(began)
    else expect(said).toMatch(/✖ iscsi: Vagrant has no box .* for libvirt\n +Hint: lab box build/)
  })
})

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

describe.concurrent('JSON for programs', () => {
  test.each<{ line: string; schema: string; exitCode?: number; has: readonly string[] }>([
    { line: 'list', schema: 'lab.list/v1', has: ['labs'] },
    { line: 'validate iscsi', schema: 'lab.validate/v1', has: ['name', 'file', 'valid'] },
    { line: 'render iscsi out', schema: 'lab.render/v1', has: ['name', 'provider', 'files'] },
    { line: 'plan iscsi', schema: 'lab.plan/v1', has: ['name', 'provider', 'problems', 'steps'] },
    {
      line: 'status iscsi',
      schema: 'lab.status/v1',
      has: ['name', 'provider', 'up', 'network', 'machines', 'files'],
    },
    // No machine answers, so the checks fail, and the report says so.
    { line: 'verify iscsi', schema: 'lab.report/v1', exitCode: 1, has: ['summary', 'results'] },
    { line: 'stop iscsi', schema: 'lab.stop/v1', has: ['name', 'machines'] },
    { line: 'down iscsi', schema: 'lab.down/v1', has: ['name', 'existed', 'left'] },
  ])('lab $line -o json prints its documented schema', async ({ line, schema, exitCode = 0, has }) => {
    const desk = newDesk()
    await desk.madeBefore('iscsi')
    const ran = await desk.lab([...line.split(' '), '-o', 'json'])
    expect(ran).toMatchObject({ exitCode, stderr: '' })
    const json = JSON.parse(ran.stdout)
    expect(json.schema).toBe(schema)
    expect(Object.keys(json)).toEqual(expect.arrayContaining([...has]))
  })

  test('lab forward -o json prints at once where it listens', async () => {
    const desk = newDesk()
    await desk.madeBefore('iscsi')
    const words = ['forward', 'iscsi', 'target:3260', '--port', '0', '-o', 'json']
    const forward = execa(process.execPath, [cli, ...words], { env: desk.env, reject: false })
    let said = ''
    for await (const chunk of forward.stdout) {
      said += String(chunk)
      if (said.includes('\n}')) break
    }
    const json = JSON.parse(said)
    expect(json).toMatchObject({ schema: 'lab.forward/v1', name: 'iscsi', to: 'target:3260' })
    const [host, port] = (json.listen as string).split(':')
    const told = once(forward.stderr, 'data') as Promise<[Buffer]>
    // There is nothing behind the port here: a client is disconnected, the reason is printed, and the command
    // continues.
    const socket = connect(Number(port), host)
    socket.on('error', () => {})
    await once(socket, 'close')
    expect(String((await told)[0])).toMatch(/^✖ target:3260: connect ENOENT/)
    forward.kill('SIGINT')
    expect((await forward).exitCode).toBe(0)
  })

  test('lab doctor -o json lists every provider and exits with 0 only if one works', async () => {
    const { exitCode, stdout } = await newDesk().lab(['doctor', '-o', 'json'])
    const json = JSON.parse(stdout)
    expect(json).toMatchObject({ schema: 'lab.doctor/v1', host: { missing: expect.any(Array) } })
    expect(json.providers.map(({ provider }: { provider: string }) => provider)).toEqual([
      'uml',
      'libvirt',
      'virtualbox',
      'hosts',
      'cluster',
    ])
    for (const { usable, evidence, remedy } of json.providers) {
      expect(evidence).not.toBe('')
      if (!usable) expect(remedy).toBeTruthy()
    }
    expect(exitCode).toBe(json.chosen === undefined ? 3 : 0)
  })

  test('lab schema prints a JSON Schema', async () => {
    const { exitCode, stdout } = await newDesk().lab(['schema'])
    expect(exitCode).toBe(0)
    expect(JSON.parse(stdout)).toEqual(JSON.parse(await readFile(labFile('labs/lab.schema.json'), 'utf8')))
    expect(JSON.parse(stdout).$schema).toMatch(/^https?:\/\/json-schema\.org\//)
  })
})

describe.concurrent('text for people', () => {
  test('lab list shows every lab with its experiments, and which labs exist', async () => {
    const desk = newDesk()
    await desk.madeBefore('iscsi-ha')
    const { stdout } = await desk.lab(['list'])
    expect(stdout).toMatch(/^iscsi +- +One iSCSI.*$/m)
    expect(stdout).toMatch(/^iscsi-ha +made \(uml\) +MariaDB.*$/m)
    expect(stdout).toMatch(/^deployment +- +.*\n {2}scale +.*$/m)
  })

  test('lab doctor names every provider and what to do for those that do not work', async () => {
    const { stdout } = await newDesk().lab(['doctor'])
    for (const name of ['uml', 'libvirt', 'virtualbox'])
      expect(stdout).toMatch(
        new RegExp(
          `^(✔ ${name} +usable.*: .+|✖ ${name} +not usable.*: .+\\n +to make it usable:\\n +.+)$`,
          'm',
        ),
      )
  })

  test('lab validate names the file it read', async () => {
    const desk = newDesk()
    await copyFile(labFile('labs/iscsi.yaml'), join(desk.here, 'mine.yaml'))
    const ran = await desk.lab(['validate', 'mine.yaml'])
    expect(ran).toMatchObject({ exitCode: 0, stderr: '' })
    expect(ran.stdout).toMatch(/^.*\/here\/mine\.yaml: valid lab file: iscsi, 2 machines, 1 targets\n$/)
  })

  test('lab init writes a valid lab file and never overwrites one without being asked', async () => {
    const desk = newDesk()
    expect(await desk.lab(['init', 'my-lab'])).toMatchObject({ exitCode: 0, stderr: '' })
    expect(await desk.lab(['validate', './my-lab.yaml'])).toMatchObject({ exitCode: 0 })
    const file = join(desk.here, 'my-lab.yaml')
    await writeFile(file, 'precious')
    const refused = await desk.lab(['init', 'my-lab', '--from', 'iscsi'])
    expectOneError(refused, /^✖ my-lab\.yaml exists already\n +Hint: .*--force/)
    expect(refused.exitCode).toBe(2)
    expect(await readFile(file, 'utf8')).toBe('precious')
    expect(await desk.lab(['init', 'my-lab', '--from', 'iscsi', '--force'])).toMatchObject({ exitCode: 0 })
    expect(await desk.lab(['validate', './my-lab.yaml'])).toMatchObject({ exitCode: 0 })
    expect(desk.contents()).toEqual(['here/my-lab.yaml'])
  })

  test('lab init refuses a path where no file can be', async () => {
    const desk = newDesk()
    await mkdir(join(desk.here, 'my-lab.yaml'))
    const ran = await desk.lab(['init', 'my-lab', '--force'])
    expectOneError(ran, /^✖ my-lab\.yaml cannot be written: .*EISDIR/)
    expect(ran.exitCode).toBe(2)
  })

  test('lab --help and lab --version print to standard output', async () => {
    const desk = newDesk()
    const { version } = JSON.parse(await readFile(labFile('package.json'), 'utf8'))
    expect(await desk.lab(['--version'])).toEqual({ exitCode: 0, stdout: `${version}\n`, stderr: '' })
    const help = await desk.lab(['--help'])
    expect(help).toMatchObject({ exitCode: 0, stderr: '' })
    const commands = [...help.stdout.matchAll(/^ {2}([a-z]+) (?:\[|<| ).* {2}\S/gm)].map(
      ([, name = '']) => name,
    )
    expect(commands).toEqual(
      expect.arrayContaining([...commandsOfLabs.map(([name]) => name), 'list', 'completion']),
    )
    await Promise.all(
      commands
        .filter((name) => name !== 'help')
        .map(async (command) => {
          const one = await desk.lab([command, '--help'])
          expect(one).toMatchObject({ exitCode: 0, stderr: '' })
          expect(one.stdout).toMatch(new RegExp(`^Usage: lab ${command}\\b`))
        }),
    )
    expect(desk.contents()).toEqual([])
  })
})

describe.concurrent('lab render', () => {
  const secrets = { chap: 'Zebra-chap-47', user: 'Zebra-user-48', root: 'Zebra-root-49' }
  const withSecrets = async (desk: Desk): Promise<void> => {
    const text = (await readFile(labFile('labs/iscsi-ha.yaml'), 'utf8'))
      .replace('password: password', `password: ${secrets.chap}`)
      .replace('password: dev', `password: ${secrets.user}`)
      .replace('rootPassword: root', `rootPassword: ${secrets.root}`)
    await writeFile(join(desk.here, 'mine.yaml'), text)
  }

  test('lab render lists every file it wrote, and only the owner can read those with secrets', async () => {
    const desk = newDesk()
    await withSecrets(desk)
    const ran = await desk.lab(['render', 'mine.yaml', 'out'])
    expect(ran).toMatchObject({ exitCode: 0, stderr: '' })
    const listed = ran.stdout.trimEnd().split('\n')
    const there = await readdir(join(desk.here, 'out'), { recursive: true, withFileTypes: true })
    const files = there
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name))
    expect(listed.map((path) => join(desk.here, path)).sort()).toEqual(files.sort())
    expect(listed.map((path) => basename(path))).toEqual(
      expect.arrayContaining(['Vagrantfile', '10-lab.conflist', '50-target', 'kubeadm.yaml']),
    )
    const found = new Set<string>()
    for (const path of files) {
      const text = await readFile(path, 'utf8')
      const { mode } = await stat(path)
      const inside = Object.values(secrets).filter(
        (secret) => text.includes(secret) || text.includes(Buffer.from(secret).toString('base64')),
      )
      for (const secret of inside) found.add(secret)
      if (inside.length > 0 || text.includes('bootstrapToken') || path.includes('/manifests/'))
        expect(`${path} ${(mode & 0o077).toString(8)}`).toBe(`${path} 0`)
    }
    // Otherwise the test would not see them there.
    expect([...found].sort()).toEqual(Object.values(secrets).sort())
    const modeOf = async (path: string): Promise<string> =>
      ((await stat(join(desk.here, 'out', path))).mode & 0o777).toString(8)
    expect(await modeOf('machines/target/etc/lab/boot.d/50-target')).toBe('700')
    expect(await modeOf('machines/master/etc/lab/kubeadm.yaml')).toBe('600')
    expect(await modeOf('machines/master/etc/hostname')).toBe('644')
    // No command has changed anything, and no lab was made.
    expect(desk.contents().filter((path) => !path.startsWith('here/'))).toEqual([])
  })

  test('lab render overwrites existing files with new content and the right mode', async () => {
    const desk = newDesk()
    await withSecrets(desk)
    await mkdir(join(desk.here, 'rendered', 'manifests'), { recursive: true })
    await desk.lab(['render', 'mine.yaml'])
    const folder = join(desk.here, 'rendered', 'manifests')
    for (const name of await readdir(folder)) await writeFile(join(folder, name), 'old')
    await execa('chmod', ['-R', 'a+rX', folder])
    expect((await desk.lab(['render', 'mine.yaml'])).exitCode).toBe(0)
    for (const name of await readdir(folder)) {
      expect(await readFile(join(folder, name), 'utf8')).not.toBe('old')
      expect((await stat(join(folder, name))).mode & 0o777).toBe(0o600)
    }
  })

  test.each(['virtualbox', 'libvirt'])(
    'lab render --provider %s names the disks as that provider does',
    async (provider) => {
      const desk = newDesk()
      expect((await desk.lab(['render', 'iscsi', 'out', '--provider', provider])).exitCode).toBe(0)
      const script = await readFile(join(desk.here, 'out/machines/target/etc/lab/boot.d/50-target'), 'utf8')
      expect(script).toContain(
        provider === 'libvirt' ? '/by-id/virtio-lab0' : '/by-id/ata-VBOX_HARDDISK_lab0',
      )
    },
  )

  test.each(['taken', 'taken/below'])(
    'lab render refuses a path where no folder can be: %s',
    async (folder) => {
      const desk = newDesk()
      await writeFile(join(desk.here, 'taken'), '')
      const ran = await desk.lab(['render', 'iscsi', folder])
      expectOneError(ran, /^✖ taken.* cannot be written: (EEXIST|ENOTDIR)/)
      expect(ran.exitCode).toBe(2)
    },
  )
})

describe.concurrent('secrets', () => {
  // The first is printed by a check that looks for the network: wherever it appears, it is shown.
  const [chap, user, root] = ['no supervisor is running', 'Zebra-user-48', 'Zebra-root-49']

  test.each([
    'validate mine.yaml -o json',
    'render mine.yaml out -o json',
    'render mine.yaml out',
    'plan mine.yaml -o json',
    'plan mine.yaml',
    'verify mine -o json',
    'verify mine',
    'verify mine --events',
    'status mine -o json',
  ])('lab %s prints no secret', async (line) => {
    const desk = newDesk()
    const text = (await readFile(labFile('labs/iscsi-ha.yaml'), 'utf8'))
      .replace('name: iscsi-ha', 'name: mine')
      .replace('password: password', `password: '${chap}'`)
      .replace('password: dev', `password: ${user}`)
      .replace('rootPassword: root', `rootPassword: ${root}`)
    await writeFile(join(desk.here, 'mine.yaml'), text)
    await desk.madeBefore('mine', { 'lab.yaml': text })
    const ran = await desk.lab(line.split(' '))
    expect(ran.stdout.length).toBeGreaterThan(40)
    // Of a lab's state, `status` shows what the supervisor reports, and no text of the lab file.
    const secrets = line.startsWith('status') ? [user, root] : [chap, user, root]
    for (const secret of secrets) expect(`${ran.stdout}${ran.stderr}`).not.toContain(secret)
  })
})

describe.concurrent('a completion script', () => {
  const installed = async (program: string): Promise<boolean> =>
    (await execa('sh', ['-c', `command -v ${program}`], { reject: false })).exitCode === 0

  test.each(['bash', 'zsh', 'fish'])(
    'the completion script for %s is valid in that shell and contains every command',
    async (shell) => {
      const desk = newDesk()
      const { exitCode, stdout, stderr } = await desk.lab(['completion', shell])
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
      for (const word of ['up', 'down', 'verify', 'forward', 'completion'])
        expect(stdout).toMatch(new RegExp(`[ ']${word}[ ')]`))
      if (!(await installed(shell))) return
      await writeFile(join(desk.here, 'script'), stdout)
      expect(await desk.run(shell, ['-n', 'script'])).toEqual({ exitCode: 0, stdout: '', stderr: '' })
    },
  )

  /** The words that bash offers to complete the last one. */
  const offered = async (desk: Desk, ...words: readonly string[]): Promise<readonly string[]> => {
    const { stdout, stderr } = await desk.shell(
      `eval "$(lab completion bash)"
       COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
       "$(complete -p lab | sed 's/.*-F \\([^ ]*\\).*/\\1/')" lab
       printf '%s\\n' "\${COMPREPLY[@]}"`,
    )
    expect(stderr).toBe('')
    return stdout.trimEnd().split('\n')
  }

  test('the completion script completes commands, labs and files, then machines', async () => {
    const desk = newDesk()
    await desk.madeBefore('iscsi')
    await writeFile(join(desk.here, 'mine.yaml'), '')
    expect(await offered(desk, 'lab', 'st')).toEqual(['stop', 'start', 'status'])
    expect(await offered(desk, 'lab', 'up', '')).toEqual([...shippedNames(), 'mine.yaml'])
    expect(await offered(desk, 'lab', 'ssh', 'iscsi', '')).toEqual(
      expect.arrayContaining(['target', 'initiator']),
    )
    expect(await offered(desk, 'lab', 'ssh', 'iscsi', 'ini')).toEqual(['initiator'])
  })
})

describe.concurrent('a reader that goes away', () => {
  test.each([
    { line: 'lab list | head -1', exitCode: 0, stdout: /^cassandra .*\n$/ },
    { line: 'lab list | true', exitCode: 0, stdout: /^$/ },
    { line: 'lab schema | true', exitCode: 0, stdout: /^$/ },
    { line: 'lab --help | true', exitCode: 0, stdout: /^$/ },
    { line: 'lab up nonsense 2>&1 | true', exitCode: 2, stdout: /^$/ },
    { line: 'lab nonsense 2>&1 | true', exitCode: 2, stdout: /^$/ },
  ])(
    '$line exits with $exitCode and prints no error when its reader is gone',
    async ({ line, exitCode, stdout }) => {
      const ran = await newDesk().shell(`${line}; exit "\${PIPESTATUS[0]}"`)
      expect(ran).toEqual({ exitCode, stdout: expect.stringMatching(stdout), stderr: '' })
    },
  )

  test('a command runs to its end although its reader is gone', async () => {
    const desk = newDesk()
    await desk.madeBefore('iscsi')
    const { stdout } = await desk.shell('lab verify iscsi --events 2>told | head -1; tail -n 1 told')
    expect(stdout).toMatch(/^\{.*"type":"run-started".*\}\n.* failed +Bring up iscsi: \d+ failed, .*\n$/)
  })

  test('a full disk under standard output is an error, unlike a reader that is gone', async () => {
    const ran = await newDesk().shell('lab list > /dev/full')
    expect(ran).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/^✖ standard output: ENOSPC/) })
  })
})

describe.concurrent('colour', () => {
  const red = '\u001b[31m'

  test.each([
    { name: 'on a terminal', env: {}, colour: true },
    { name: 'not with NO_COLOR', env: { NO_COLOR: '1' }, colour: false },
    { name: 'not on a dumb terminal', env: { TERM: 'dumb' }, colour: false },
  ])('colour follows the terminal and the environment: $name', async ({ env, colour }) => {
    const desk = newDesk()
    await desk.madeBefore('iscsi')
    const verify = `'${process.execPath}' '${cli}' verify iscsi; '${process.execPath}' '${cli}' up nonsense`
    const { output } = await underTerminal(verify, { env: { ...desk.env, ...env } })
    expect(output).toContain('no lab named nonsense')
    expect(output).toContain('target runs as the lab file says')
    expect(output.split('\n').filter((line) => line.includes(red)).length > 1).toBe(colour)
    if (!colour) expect(output).not.toContain('\u001b[3')
  })

  test('FORCE_COLOR enables colour in a pipe, which otherwise has none', async () => {
    const desk = newDesk()
    expect((await desk.lab(['up', 'nonsense'])).stderr).not.toContain('\u001b')
    expect((await desk.lab(['up', 'nonsense'], { FORCE_COLOR: '1' })).stderr).toContain(red)
  })
})

describe.concurrent('the folders', () => {
  test('an empty LAB_STATE counts as unset, and nothing in the current folder is taken for a lab', async () => {
    const desk = newDesk()
    await mkdir(join(desk.here, 'iscsi'))
    await writeFile(join(desk.here, 'iscsi', 'precious'), '')
    const ran = await desk.lab(['down', 'iscsi'], { LAB_STATE: '', XDG_STATE_HOME: '' })
    expect(ran.stdout).toMatch(/^iscsi: was not up/)
    expect(desk.contents()).toContain('here/iscsi/precious')
    expect(desk.contents()).toContain('home/.local/state/lab')
  })

  test('a relative LAB_STATE is resolved against the current folder and shown in full', async () => {
    const desk = newDesk()
    await mkdir(join(desk.here, 'mine', 'iscsi'), { recursive: true })
    await writeFile(join(desk.here, 'mine', 'iscsi', 'provider'), 'uml\n')
    const ran = await desk.lab(['status', 'iscsi', '-o', 'json'], { LAB_STATE: 'mine' })
    expect(JSON.parse(ran.stdout).files.folder).toBe(join(desk.here, 'mine', 'iscsi'))
  })

  test.each([
    { env: { XDG_STATE_HOME: '/x/state' }, folder: '/x/state/lab/iscsi' },
    { env: { XDG_STATE_HOME: 'relative' }, folder: 'home/.local/state/lab/iscsi' },
  ])('the default folder is used without LAB_STATE: $env', async ({ env, folder }) => {
    const desk = newDesk()
    const program = `import { pathsOf } from '${join(dist, 'state.js')}'; console.log(pathsOf({ name: 'iscsi' }).root)`
    const { stdout } = await desk.run(process.execPath, ['--input-type=module', '--eval', program], {
      ...env,
      LAB_STATE: '',
    })
    expect(stdout.trim()).toBe(folder.startsWith('/') ? folder : join(desk.folder, folder))
  })

  test('a folder whose path is too long for sockets is named, with what to do', async () => {
    const desk = newDesk()
    const ran = await desk.lab(['status', 'iscsi'], { LAB_STATE: join(desk.folder, 'x'.repeat(80)) })
    expectOneError(
      ran,
      /: too long for a folder that holds Unix sockets\n +Hint: set LAB_STATE to a shorter folder/,
    )
    expect(ran.exitCode).toBe(2)
    expect(desk.contents()).toEqual([])
  })
})
