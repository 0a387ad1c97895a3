/** Machines of any Vagrant box: lab gets in, and installs what a machine of lab's own box would have. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { type Lab, machineNamed } from '../../src/lab/lab.js'
import { labKeys, machineKeys } from '../../src/machine/keys.js'
import { equipmentFor } from '../../src/provider/hosts/equip.js'
import { hostsProvider } from '../../src/provider/hosts/hosts.js'
import { stockEntryScript } from '../../src/provider/vagrant/stock-box.js'
import { vagrantProvider } from '../../src/provider/vagrant/vagrant.js'
import { renderVagrantfile } from '../../src/provider/vagrant/vagrantfile.js'
import { loadLab } from '../../src/registry.js'
import { iscsiSteps, kubernetesSteps, machineSteps } from '../../src/steps/subjects.js'
import { temporaryFolder } from '../helpers/folder.js'

vi.setConfig({ testTimeout: 60_000 })

const labOf = async (name: string, box?: string): Promise<Lab> => ({ ...(await loadLab(name)), box })

const boxes = ['debian/trixie64', 'bento/ubuntu-24.04'] as const

describe('the Vagrantfile of a lab with a box', () => {
  test.each([
    ['iscsi', 'debian/trixie64', 'virtualbox'],
    ['iscsi', 'debian/trixie64', 'libvirt'],
    ['iscsi-ha', 'bento/ubuntu-24.04', 'virtualbox'],
    ['iscsi-ha', 'bento/ubuntu-24.04', 'libvirt'],
  ] as const)('the Vagrantfile of %s, made of %s by %s, matches the golden one', async (name, box, kind) => {
    await expect(renderVagrantfile(await labOf(name, box), kind)).toMatchFileSnapshot(
      `../golden/vagrant/${name}.${box.replace('/', '-')}.${kind}.Vagrantfile`,
    )
  })

  test.each(boxes)('the Vagrantfile names %s instead of lab’s own box, in any version', async (box) => {
    const text = renderVagrantfile(await labOf('iscsi', box), 'virtualbox')
    expect(text).toContain(`BOX = ENV.fetch('LAB_BOX', '${box}')`)
    expect(text).not.toMatch(/box_version|lab box build/)
  })
})

describe('the plan of a lab with a box', () => {
  const options = { secrets: { bootstrapToken: 'aaaaaa.aaaaaaaaaaaaaaaa', clusterKey: 'x' } }
  const ids = (lab: Lab, provider = vagrantProvider('virtualbox')): readonly string[] =>
    machineSteps(lab, provider, options, []).map(({ id }) => id)

  test('the plan of a lab with a box equips each machine after it can be reached, and before its files are written', async () => {
    const steps = machineSteps(await labOf('iscsi', boxes[0]), vagrantProvider('libvirt'), options, [])
    const of = (id: string) => steps.find((step) => step.id === id)
    expect(of('equip-target')?.needs).toEqual(['reach-target'])
    expect(of('configure-target')?.needs).toContain('equip-target')
    // These machines are lab's own, and nobody wants them back.
    expect(steps.some(({ id }) => id.startsWith('take-'))).toBe(false)
  })

  test('the plan of a lab equips machines that exist already, and none of lab’s own box', async () => {
    expect(ids(await labOf('iscsi')).filter((id) => id.startsWith('equip-'))).toEqual([])
    expect(ids(await labOf('iscsi'), hostsProvider).filter((id) => id.startsWith('equip-'))).toEqual([
      'equip-target',
      'equip-initiator',
    ])
  })

  test('the plan of a lab with a box loads images on nodes before a cluster starts, since the box has none', async () => {
    const needs = async (box?: string): Promise<readonly string[]> =>
      kubernetesSteps(await labOf('iscsi-ha', box), vagrantProvider('virtualbox')).flatMap((step) =>
        step.needs.filter((id) => id.startsWith('load-images-')),
      )
    expect([...(await needs(boxes[1]))].sort()).toEqual([
      'load-images-master',
      'load-images-worker1',
      'load-images-worker2',
    ])
    expect(await needs()).toEqual([])
  })

  test('the plan of a lab with a box serves disks that Vagrant attaches', async () => {
    const lab = await labOf('iscsi', boxes[0])
    expect(iscsiSteps(lab, vagrantProvider('virtualbox')).every(({ leftOut }) => !leftOut)).toBe(true)
    const machine = machineNamed(lab, 'target')
    const { files, modules } = await equipmentFor(lab, machine, { ownDisks: true })
    expect(files.map(({ path }) => path)).not.toContain('/etc/lab/boot.d/40-luns')
    expect(modules).toEqual(['target_core_mod', 'target_core_iblock', 'iscsi_target_mod'])
  })
})

describe('the script that lets lab into a new machine', () => {
  let root: string
  let lab: Lab

  /** Runs it in a folder, on a system with this os-release. */
  const run = async (osRelease: string): Promise<{ readonly code: number; readonly said: string }> => {
    const file = join(root, 'entry.sh')
    const script = (await stockEntryScript(lab, machineNamed(lab, 'target')))
      .replaceAll('/etc/os-release', join(root, 'os-release'))
      .replaceAll('/root/.ssh', join(root, 'root/.ssh'))
      .replace('--directory=/', `--directory=${root}`)
      .replace(/^hostname /m, 'echo hostname ')
      .replace(/^systemctl /m, 'echo systemctl ')
    await writeFile(join(root, 'os-release'), osRelease)
    await writeFile(file, script)
    try {
      return { code: 0, said: execFileSync('bash', [file], { encoding: 'utf8', stdio: 'pipe' }) }
    } catch (error) {
      const { status, stderr } = error as { status: number; stderr: string }
      return { code: status, said: stderr }
    }
  }

  beforeEach(async () => {
    vi.stubEnv('LAB_STATE', await temporaryFolder())
    root = await temporaryFolder()
    await mkdir(join(root, 'root'))
    lab = await labOf('iscsi', boxes[0])
  })

  test.each([
    ['Debian 12', 'ID=debian\nVERSION_ID="12"\n'],
    ['Debian 13', 'ID=debian\nVERSION_ID="13"\n'],
    ['Ubuntu 22.04', 'ID=ubuntu\nVERSION_ID="22.04"\n'],
    ['Ubuntu 24.04', 'ID=ubuntu\nVERSION_ID="24.04"\n'],
    ['Ubuntu 26.04', 'ID=ubuntu\nVERSION_ID="26.04"\n'],
  ])(
    'the script gives a new machine the lab’s key and its host key, and removes itself: %s',
    async (_, osRelease) => {
      const { code, said } = await run(osRelease)
      expect(said.trim().split('\n')).toEqual(['hostname target', 'systemctl restart ssh'])
      expect(code).toBe(0)
      const { publicKey } = await labKeys(lab)
      const own = await machineKeys(lab, 'target')
      const read = (path: string): string => readFileSync(join(root, path), 'utf8')
      expect(read('root/.ssh/authorized_keys')).toBe(`${publicKey}\n`)
      expect(statSync(join(root, 'root/.ssh')).mode & 0o777).toBe(0o700)
      expect(statSync(join(root, 'root/.ssh/authorized_keys')).mode & 0o777).toBe(0o600)
      expect(read('etc/ssh/ssh_host_ed25519_key')).toBe(own.privateKey)
      expect(statSync(join(root, 'etc/ssh/ssh_host_ed25519_key')).mode & 0o777).toBe(0o600)
      expect(existsSync(join(root, 'entry.sh'))).toBe(false)
    },
  )

  test.each([
    ['Debian 11', 'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n'],
    ['Fedora', 'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n'],
    ['Ubuntu 20.04', 'ID=ubuntu\nVERSION_ID="20.04"\nPRETTY_NAME="Ubuntu 20.04.6 LTS"\n'],
  ])(
    'the script refuses a box that lab does not know, and changes nothing in it: %s',
    async (_, osRelease) => {
      const { code, said } = await run(osRelease)
      expect(code).toBe(1)
      expect(said).toMatch(/^lab needs a box with Debian 12 or 13, or Ubuntu 22\.04 to 26\.04, and not \S/)
      expect(existsSync(join(root, 'etc/ssh'))).toBe(false)
    },
  )
})
