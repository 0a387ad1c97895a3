/** The built command line as users run it: their mistakes, what it tells them, and what it leaves behind. */
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { cli, dist } from '../helpers/cli.js'
import { commandsOfLabs, expectOneError, labFile, newDesk } from './cli.js'

// Each test starts one or more processes, which take half a second of CPU each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

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
    expectOneError(
      ran,
      /^✖ no lab named iscsi-hq; did you mean iscsi-ha\?\n +Hint: lab list shows them\n( +or, if (libvirt|virtualbox), which does not answer, may have machines of iscsi-hq: .+\n)*$/,
    )
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
