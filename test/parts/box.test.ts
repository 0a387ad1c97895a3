/** What Vagrant is told about a box. test/vagrant checks that Vagrant accepts and boots it. */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { loadLab } from '../../src/registry.js'
import { boxMetadata, boxVersionOf } from '../../src/parts/box.js'
import { catalog } from '../../src/parts/catalog.js'
import { hashesOf } from '../../src/parts/graph.js'
import { boxOf } from '../../src/parts/parts.js'
import { pins } from '../../src/parts/pins.js'
import { vagrantProvider } from '../../src/provider/vagrant/vagrant.js'
import { projectRoot } from '../../src/package.js'
import { temporaryFolder } from '../helpers/folder.js'

const set = (name: string, value: string): void => {
  const before = process.env[name]
  process.env[name] = value
  onTestFinished(() => {
    if (before === undefined) Reflect.deleteProperty(process.env, name)
    else process.env[name] = before
  })
}

describe('the version of a box', () => {
  test('the version of a box is the version of Kubernetes plus a number for its content', () => {
    expect(boxVersionOf('v1.36.3', '0000000a1234')).toBe('1.36.3.10')
    expect(boxVersionOf('v1.36.3', 'ffffffff1234')).toBe('1.36.3.4294967295')
  })

  test('the version of a box changes for each provider as soon as its content changes', () => {
    const before = hashesOf(catalog(pins(), '/cache'))
    const changed = structuredClone(pins())
    changed.box.packages.push('x')
    const after = hashesOf(catalog(changed, '/cache'))
    for (const id of ['box-libvirt', 'box-virtualbox'])
      expect(boxVersionOf('v1.36.3', after.get(id) ?? '')).not.toBe(
        boxVersionOf('v1.36.3', before.get(id) ?? ''),
      )
    expect(boxOf('libvirt').version).toBe(boxVersionOf('v1.36.3', before.get('box-libvirt') ?? ''))
  })
})

test('the metadata of a box gives vagrant box add a file next to it and its checksum', () => {
  const about = {
    provider: 'virtualbox',
    architecture: 'amd64',
    hash: '0000000a1234',
    checksum: 'c0ffee',
  } as const
  expect(boxMetadata(pins(), about)).toEqual({
    name: 'lab/debian-13',
    description: 'Debian trixie with Kubernetes v1.36.3, for amd64',
    versions: [
      {
        version: '1.36.3.10',
        providers: [
          {
            name: 'virtualbox',
            url: 'lab-debian-13.box',
            checksum_type: 'sha256',
            checksum: 'c0ffee',
            architecture: 'amd64',
          },
        ],
      },
    ],
  })
})

test('the kernel of a box loads early the modules that kube-proxy and the CNI plugins look for', async () => {
  const file = join(projectRoot, 'templates', 'box', 'etc', 'modules-load.d', 'lab.conf')
  const modules = (await readFile(file, 'utf8')).split('\n').filter((line) => line && !line.startsWith('#'))
  expect(modules).toEqual(expect.arrayContaining(['nf_conntrack', 'nf_tables', 'br_netfilter', 'overlay']))
})

describe('whether Vagrant has it', () => {
  const agree = (): Promise<'no'> => Promise.resolve('no')
  const prepare = async (): Promise<void> =>
    vagrantProvider('libvirt').prepare(await loadLab('iscsi'), {
      signal: new AbortController().signal,
      notice: () => undefined,
      progress: () => undefined,
      agree,
    })
  const { version } = boxOf('libvirt')

  test.each([
    { where: 'as Vagrant 2.3 keeps it', folder: [version, 'libvirt'], has: true },
    { where: 'as Vagrant 2.4 keeps it', folder: [version, 'amd64', 'libvirt'], has: true },
    { where: 'for VirtualBox only', folder: [version, 'virtualbox'], has: false },
    { where: 'in an earlier version', folder: ['1.36.3.1', 'libvirt'], has: false },
  ])('a box that is stored $where is found by Vagrant: $has', async ({ folder, has }) => {
    const home = await temporaryFolder()
    set('VAGRANT_HOME', home)
    // Nothing is built in it.
    set('LAB_CACHE', join(home, 'cache'))
    await mkdir(join(home, 'boxes', 'lab-VAGRANTSLASH-debian-13', ...folder), { recursive: true })
    if (has) await prepare()
    else await expect(prepare()).rejects.toMatchObject({ code: 'no-box', exitCode: 3 })
  })

  test("lab leaves a box of the user's own alone", async () => {
    const home = await temporaryFolder()
    set('VAGRANT_HOME', home)
    set('LAB_CACHE', join(home, 'cache'))
    set('LAB_BOX', 'my/box')
    await prepare()
  })
})
