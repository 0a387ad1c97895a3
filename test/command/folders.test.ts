/** Folders of labs and parts that cannot be created, read, written or trusted: either one clear error, or success. */
import { chmod, chown, mkdir, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, test, vi } from 'vitest'
import { writeAccess } from '../../src/lifecycle/access.js'
import { loadLab } from '../../src/lifecycle/load-lab.js'
import { quote } from '../../src/machine/sh.js'
import { umlProvider } from '../../src/provider/uml/uml.js'
import { cli, type Desk, desks, type Ran } from '../helpers/cli.js'
import { temporaryFolder } from '../helpers/folder.js'

// Each test starts one or more processes, which take half a second of CPU each, and many times that on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

const root = process.getuid?.() === 0
const stranger = 4321
const newDesk = desks()

/** One error that blames the host, without a stack trace. */
const expectHostError = ({ exitCode, stdout, stderr }: Ran, says: RegExp): void => {
  expect(stderr).toMatch(says)
  expect(stderr).toMatch(/\n +Hint: /)
  expect(stderr).not.toMatch(/defect of lab|^ +at /m)
  expect(stdout).toBe('')
  expect(exitCode).toBe(3)
}

/** The built command line in a mount namespace of its own, which ends with it. */
const inMounts = (desk: Desk, mounts: string, line: string): Promise<Ran> =>
  desk.run('unshare', [
    '--mount',
    'sh',
    '-c',
    `${mounts} && exec ${quote(process.execPath)} ${quote(cli)} ${line}`,
  ])

describe.concurrent('an unusable folder of labs', () => {
  test.each(['/proc/lab', '/dev/null', '/dev/null/lab', '/sys/lab'])(
    'lab up refuses LAB_STATE at once when it is %s',
    async (state) => {
      expectHostError(
        await newDesk().lab(['up', 'iscsi'], { LAB_STATE: state }),
        /cannot be created|is a file, but a folder is expected/,
      )
    },
  )

  test('lab refuses a folder behind a dangling or circular link', async () => {
    const desk = newDesk()
    await symlink('nowhere', join(desk.folder, 'dangling'))
    await symlink('loop', join(desk.folder, 'loop'))
    expectHostError(
      await desk.lab(['up', 'iscsi'], { LAB_STATE: join(desk.folder, 'dangling') }),
      /dangling cannot be created: a broken symbolic link is in the way/,
    )
    expectHostError(
      await desk.lab(['status', 'iscsi'], { LAB_STATE: join(desk.folder, 'loop') }),
      /symbolic links form a loop/,
    )
  })

  test.runIf(root).each([
    {
      mount: 'mount -t tmpfs -o ro tmpfs',
      says: 'its file system is read-only',
      hint: 'use another place: LAB_STATE=',
    },
    { mount: 'mount -t tmpfs -o nr_inodes=1 tmpfs', says: 'its file system is full', hint: 'df -h ' },
    // Files can be created there, but stay empty.
    {
      mount:
        'fill() { mount -t tmpfs -o size=64k tmpfs "$1"; cat /dev/zero > "$1/fill" 2>/dev/null || :; }; fill',
      says: 'its file system is full',
      hint: 'df -h ',
    },
  ])(
    'lab refuses a folder on a file system that cannot be written to: $mount',
    async ({ mount, says, hint }) => {
      const desk = newDesk()
      const ran = await inMounts(desk, `${mount} ${quote(desk.state)}`, 'up iscsi')
      expectHostError(ran, new RegExp(`${desk.state} cannot be written to: ${says}`))
      expect(ran.stderr).toContain(`Hint: ${hint}`)
    },
  )

  test('lab says so when no home folder is known', async () => {
    const desk = newDesk()
    const ran = await desk.run(root ? 'setpriv' : 'env', [
      ...(root ? ['--reuid', String(stranger), '--clear-groups'] : []),
      'env',
      '-u',
      'HOME',
      '-u',
      'LAB_STATE',
      process.execPath,
      '--eval',
      // A user who is not in /etc/passwd has no home folder.
      `import('${join(cli, '..', 'state.js')}').then(({ stateRoot }) => console.log(stateRoot())).catch((error) => console.log(error.message, error.hint))`,
    ])
    if (root) expect(ran.stdout).toMatch(/HOME is not set name the folder: LAB_STATE=/)
  })

  test('lab leaves a lab alone when its lock cannot be read', async () => {
    const desk = newDesk()
    await mkdir(join(desk.state, '.iscsi.lock'))
    expectHostError(await desk.lab(['up', 'iscsi']), /\.iscsi\.lock is a folder; lab needs this name/)
  })
})

describe.concurrent('an unusable folder of something else', () => {
  test.each([
    { line: 'bundle make iscsi --into /proc/x', env: {}, hint: 'use another place: ' },
    { line: 'bundle make iscsi --into b', env: { LAB_CONFIG: '/proc/x' }, hint: 'LAB_CONFIG=' },
    { line: 'prepare iscsi', env: { LAB_CACHE: '/proc/x' }, hint: 'LAB_CACHE=' },
    { line: 'up iscsi', env: { LAB_STATE: '/proc/x' }, hint: 'LAB_STATE=' },
  ])('lab $line is refused at once, before any part is made: $env', async ({ line, env, hint }) => {
    const ran = await newDesk().lab(line.split(' '), env)
    expectHostError(ran, /^✖ \/proc\/x cannot be created: nothing can be created in \/proc$/m)
    expect(ran.stderr).toContain(hint)
  })
})

describe.runIf(root).concurrent('a folder of another user', () => {
  const commands = ['up', 'down', 'stop', 'start', 'status', 'verify', 'plan', 'heal', 'report']

  test.each([...commands, 'ssh', 'exec', 'kubectl', 'logs'])(
    'lab %s does not read a lab of another user, whose ssh_config could start any program',
    async (command) => {
      const desk = newDesk()
      const trap = join(desk.folder, 'trapped')
      await desk.madeBefore('iscsi', {
        ssh_config: `Host *\n  ProxyCommand touch ${trap}\n`,
        kubeconfig: '',
      })
      await execa('chown', ['-R', String(stranger), desk.state])
      const more = {
        ssh: ['target', 'true'],
        exec: ['all', 'true'],
        kubectl: ['get', 'pods'],
        logs: ['target'],
      }
      const ran = await desk.lab([
        command,
        'iscsi',
        ...((more as Partial<Record<string, readonly string[]>>)[command] ?? []),
      ])
      expectHostError(ran, /belongs to user 4321/)
      expect(ran.stderr).toMatch(/chown -R root|LAB_STATE=/)
      expect((await execa('test', ['-e', trap], { reject: false })).exitCode).toBe(1)
    },
  )

  test.each(['list', 'status iscsi', 'up iscsi', 'down iscsi'])(
    'lab %s tells a user that the lab belongs to root',
    async (line) => {
      const desk = newDesk()
      await desk.madeBefore('iscsi')
      await chmod(desk.folder, 0o755)
      await chmod(desk.state, 0o700)
      const ran = await desk.run('setpriv', [
        ...['--reuid', String(stranger), '--clear-groups', process.execPath, cli],
        ...line.split(' '),
      ])
      expectHostError(
        ran,
        /state(\/\S+)? cannot be \w+: permission denied; .*state belongs to root|belongs to root/,
      )
      expect(ran.stderr).toContain('sudo -E lab')
    },
  )

  test('lab starts no program from a cache of another user', async () => {
    const desk = newDesk()
    await chown(desk.cache, stranger, 0)
    expectHostError(
      await desk.lab(['up', 'iscsi', '--provider', 'uml']),
      /cache belongs to user 4321: lab runs/,
    )
  })

  test.each(['validate', 'up', 'plan', 'prepare'])(
    'lab %s reads no lab file from a folder of another user',
    async (command) => {
      const desk = newDesk()
      await mkdir(join(desk.folder, 'theirs'))
      const file = join(desk.folder, 'theirs', 'mine.yaml')
      await writeFile(
        file,
        await (await import('node:fs/promises')).readFile(join(cli, '../../labs/iscsi.yaml')),
      )
      await chown(file, stranger, 0)
      const ran = await desk.lab([command, file])
      expectHostError(
        ran,
        /mine\.yaml belongs to user 4321: lab would bring up a file that somebody else can change/,
      )
      expect(ran.stderr).toContain(`cp -r ${file} ~/`)
    },
  )

  test('every user may use a cache that root prepared', async () => {
    const desk = newDesk()
    await chmod(desk.folder, 0o755)
    await mkdir(join(desk.folder, 'student'))
    await chown(join(desk.folder, 'student'), stranger, 0)
    const ran = await desk.run(
      'setpriv',
      ['--reuid', String(stranger), '--clear-groups', process.execPath, cli, 'doctor', '-o', 'json'],
      { LAB_STATE: join(desk.folder, 'student') },
    )
    expect(ran.stderr).toBe('')
    expect(JSON.parse(ran.stdout).schema).toBe('lab.doctor/v1')
  })
})

describe.runIf(root).concurrent('the advice of lab doctor', () => {
  test('lab doctor names a cache that is mounted noexec, and says what to type', async () => {
    const desk = newDesk()
    const ran = await inMounts(desk, `mount -t tmpfs -o noexec tmpfs ${quote(desk.cache)}`, 'doctor')
    expect(ran.stdout).toMatch(
      /✖ uml .*no program can be started from .*cache, because .*cache is mounted noexec/,
    )
    expect(ran.stdout).toMatch(/mount -o remount,exec .*LAB_CACHE=/)
  })

  test('lab doctor names what a container without CAP_SYS_ADMIN has to be allowed', async () => {
    const ran = await newDesk().run('setpriv', [
      ...['--inh-caps=-all', '--bounding-set=-all', process.execPath, cli, 'doctor'],
    ])
    expect(ran.stdout).toMatch(/✖ uml .*this root lacks CAP_SYS_ADMIN, as in a container/)
    expect(ran.stdout).toContain('docker run --privileged')
    expect(ran.stdout).not.toMatch(/uml[^]*?apt-get install -y iproute2[^]*?libvirt/)
  })
})

describe('a path with odd characters', () => {
  test.each(['my labs', 'a,b:c', `it's "so"`, 'per%cent', 'back\\slash', '#hash $HOME', '日本'])(
    'ssh reads a path with odd characters correctly from ssh_config: %s',
    async (name) => {
      const before = process.env['LAB_STATE']
      process.env['LAB_STATE'] = join(await temporaryFolder(), name)
      try {
        const lab = await loadLab('iscsi')
        await writeAccess(lab, umlProvider)
        const folder = join(process.env['LAB_STATE'], 'iscsi')
        // ssh prints which files it opened, and the shell that runs ProxyCommand prints the words that it got.
        const config = join(folder, 'ssh_config')
        const { stdout } = await execa('ssh', ['-G', '-F', config, 'target'])
        expect(stdout).toContain('hostname 192.168.56.70')
        const { stderr } = await execa('ssh', ['-v', '-F', config, '-o', 'BatchMode=yes', 'target', 'true'], {
          reject: false,
        })
        // The type of the key that it read; -1 if the file does not exist.
        expect(stderr).toMatch(/identity file .*id_ed25519 type 3$/m)
        const [, proxy = ''] = /^proxycommand (.*)$/m.exec(stdout) ?? []
        const words = await execa('sh', ['-c', `printf '%s\\n' ${proxy.replaceAll('%%', '%')}`])
        expect(words.stdout.split('\n').slice(2)).toEqual([join(folder, 'supervisor.sock'), '%h', '%p'])
      } finally {
        if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
        else process.env['LAB_STATE'] = before
      }
    },
  )

  test('a path that ssh_config cannot express is refused', async () => {
    const ran = await newDesk().lab(['status', 'iscsi'], { LAB_STATE: '/tmp/${HOME}' })
    expect(ran.stderr).toMatch(/^✖ LAB_STATE: the folder has \$\{ or control characters in its path/)
    expect(ran.exitCode).toBe(2)
  })
})

describe.concurrent('files of a lab that a power cut emptied or cut short', () => {
  test.each(['', '{', '\0\0\0'])(
    'a damaged file is one error with what to type, and lab down still removes the lab: %j',
    async (text) => {
      const desk = newDesk()
      await desk.madeBefore('iscsi', {
        provider: text,
        'lab.json': text,
        'secrets.json': text,
        'lab.yaml': '',
      })
      const ran = await desk.lab(['status', 'iscsi'])
      expect(ran.stderr).not.toMatch(/defect of lab|^ +at /m)
      expect(ran.stderr).toContain('Hint: ')
      expect(await desk.lab(['down', 'iscsi'])).toMatchObject({ exitCode: 0, stderr: '' })
      expect(desk.contents().filter((path) => path.startsWith('state/iscsi'))).toEqual([])
    },
  )

  test.each(['', '{', '[]'])('a machine with a damaged base.json counts as never made: %j', async (text) => {
    const desk = newDesk()
    await desk.madeBefore('iscsi')
    await mkdir(join(desk.state, 'iscsi', 'machines', 'target'), { recursive: true })
    await writeFile(join(desk.state, 'iscsi', 'machines', 'target', 'base.json'), text)
    const ran = await desk.lab(['status', 'iscsi', '-o', 'json'])
    expect(JSON.parse(ran.stdout).machines[0]).toMatchObject({ name: 'target', status: 'absent' })
  })
})

describe.concurrent('a damaged record of what existed before a lab', () => {
  test.each([
    { file: 'hosts.json', provider: 'hosts\n', hint: 'lab hosts release FILE' },
    { file: 'hosts.json', provider: '', hint: 'lab hosts release FILE' },
    { file: 'cluster.json', provider: 'cluster\n', hint: 'lab up iscsi --kubeconfig FILE' },
  ])(
    'lab down does not say that the lab is gone, and keeps its folder: $file, provider $provider',
    async ({ file, provider, hint }) => {
      const desk = newDesk()
      await desk.madeBefore('iscsi', { provider, [file]: '{}' })
      const ran = await desk.lab(['down', 'iscsi'])
      expect(ran.stderr).toContain(`iscsi/${file} should say which`)
      expect(ran.stderr).toContain(hint)
      expect(ran.stderr).not.toMatch(/defect of lab|^ +at /m)
      expect(ran).toMatchObject({ exitCode: 1, stdout: '' })
      expect(desk.contents()).toContain(`state/iscsi/${file}`)
    },
  )
})

test("a lab file cannot reach lab's own files through a folder of manifests with the same name", async () => {
  const { keepManifests } = await import('../../src/lifecycle/load-lab.js')
  const state = await temporaryFolder()
  const before = process.env['LAB_STATE']
  process.env['LAB_STATE'] = state
  try {
    for (const name of ['faults', 'fencing', 'kubeconfig', 'secrets.json', 'supervisor.sock']) {
      const own = join(state, 'mine', name)
      await mkdir(own, { recursive: true })
      await writeFile(join(own, 'precious.json'), '')
      const manifests = join(await temporaryFolder(), name)
      await mkdir(manifests)
      await writeFile(join(manifests, 'web.yaml'), 'kind: Pod')
      await keepManifests({ ...(await loadLab('iscsi')), name: 'mine', manifests })
      const there = await execa('ls', [own, join(state, 'mine', 'manifests')])
      expect(there.stdout).toContain('precious.json')
      expect(there.stdout).toContain('web.yaml')
      await rm(own, { recursive: true })
    }
  } finally {
    if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
    else process.env['LAB_STATE'] = before
  }
})
