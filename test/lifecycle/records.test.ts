/** Records of machines and clusters that existed before a lab: damaged ones are errors, never an empty lab. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { providerToEnd } from '../../src/lifecycle/provider-in-use.js'
import { keepCluster, keptCluster } from '../../src/provider/cluster/lab-record.js'
import { keepHosts, keptHosts } from '../../src/provider/hosts/lab-record.js'
import { pathsOf } from '../../src/state.js'
import { temporaryFolder } from '../helpers/folder.js'

// The first test that asks for a provider loads it, which takes long on a busy host.
vi.setConfig({ testTimeout: 120_000 })

const lab = { name: 'mine', seat: undefined }

beforeEach(async () => {
  vi.stubEnv('LAB_STATE', await temporaryFolder())
})

const write = async (path: string, text: string): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await writeFile(path, text, { mode: 0o600 })
}

const damaged = ['', '{', '\0\0', 'null', '{}', '[]', '[null]', '5', '"x"'] as const
const hosts = { file: { file: 'hosts.yaml', hosts: [], jumpHosts: [] }, machines: [], returned: [] }
const cluster = { context: 'c', server: 'https://c:6443', owner: 'o', version: '1.36.3', nodes: [] }

describe('the record of the hosts of a lab', () => {
  test('the record of hosts reads back as it was kept', async () => {
    await keepHosts(lab, hosts)
    expect(await keptHosts(lab)).toEqual(hosts)
  })

  test.each([
    ...damaged,
    JSON.stringify({ ...hosts, machines: [null] }),
    JSON.stringify({ ...hosts, returned: undefined }),
    JSON.stringify({ ...hosts, file: { hosts: [{}], jumpHosts: [] } }),
  ])('a damaged record of hosts is an error with what to type, also for lab down: %j', async (text) => {
    await write(pathsOf(lab).hosts, text)
    const error = {
      code: 'bad-state',
      message: expect.stringMatching(/mine\/hosts\.json should say which hosts mine has, but does not$/),
      hint: expect.stringMatching(/rm -r \S+\/mine && lab hosts release FILE/),
    }
    await expect(keptHosts(lab)).rejects.toMatchObject(error)
    // Whether the record of the provider is there, damaged or missing.
    for (const provider of ['hosts\n', '\0', undefined]) {
      await write(pathsOf(lab).provider, provider ?? '')
      await expect(providerToEnd(lab)).rejects.toMatchObject(error)
    }
  })

  test('the record of hosts tells which provider to end when the record of the provider is missing or damaged', async () => {
    expect(await providerToEnd(lab)).toBeUndefined()
    await keepHosts(lab, hosts)
    expect((await providerToEnd(lab))?.name).toBe('hosts')
    await write(pathsOf(lab).provider, '{')
    expect((await providerToEnd(lab))?.name).toBe('hosts')
  })
})

describe('the record of the cluster of a lab', () => {
  test('the record of a cluster reads back as it was kept, and tells which provider to end', async () => {
    await keepCluster(lab, cluster)
    expect(await keptCluster(lab)).toEqual(cluster)
    expect((await providerToEnd(lab))?.name).toBe('cluster')
  })

  test.each([
    ...damaged,
    JSON.stringify({ ...cluster, owner: undefined }),
    JSON.stringify({ ...cluster, nodes: [{}] }),
  ])('a damaged record of a cluster is an error with what to type: %j', async (text) => {
    await write(pathsOf(lab).cluster, text)
    await expect(keptCluster(lab)).rejects.toMatchObject({
      code: 'bad-state',
      hint: expect.stringMatching(/^rm \S+\/mine\/cluster\.json && lab up mine --kubeconfig FILE$/),
    })
  })
})
