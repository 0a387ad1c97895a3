/** What Vagrant is told about a box. That it takes one, and boots it: test/vagrant. */
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
import { projectRoot } from '../../src/render.js'
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
  test('is the one of Kubernetes, and a number for everything in it', () => {
    expect(boxVersionOf('v1.36.3', '0000000a1234')).toBe('1.36.3.10')
    expect(boxVersionOf('v1.36.3', 'ffffffff1234')).toBe('1.36.3.4294967295')
  })

  test('is another one as soon as anything in it is, for each provider', () => {
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

test('its metadata is what `vagrant box add` reads: a file beside it, with a checksum', () => {
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

test('its kernel loads early what kube-proxy and the CNI plugins look for', async () => {
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
  ])('$where: $has', async ({ folder, has }) => {
    const home = await temporaryFolder()
    set('VAGRANT_HOME', home)
    // Nothing is built there.
    set('LAB_CACHE', join(home, 'cache'))
    await mkdir(join(home, 'boxes', 'lab-VAGRANTSLASH-debian-13', ...folder), { recursive: true })
    if (has) await prepare()
    else await expect(prepare()).rejects.toMatchObject({ code: 'no-box', exitCode: 3 })
  })

  test('a box of the user`s own is the user`s own business', async () => {
    const home = await temporaryFolder()
    set('VAGRANT_HOME', home)
    set('LAB_CACHE', join(home, 'cache'))
    set('LAB_BOX', 'my/box')
    await prepare()
  })
})
