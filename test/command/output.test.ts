/** What commands print, for programs and for people. */
import { copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { once } from 'node:events'
import { basename, join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, test, vi } from 'vitest'
import { shippedNames } from '../../src/lab/shipped.js'
import { cli, type Desk } from '../helpers/cli.js'
import { underTerminal } from '../view/terminal.js'
import { commandsOfLabs, expectOneError, labFile, newDesk } from './cli.js'

// Each test starts one or more processes, which take half a second of CPU each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

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
