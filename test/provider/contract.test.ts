/** The parts of the contract that need no machine, for every provider. test/e2e has those that boot machines. */
import { describe, expect, test, vi } from 'vitest'
import { loadLab } from '../../src/registry.js'
import { allProviders, chooseProvider, providerNamed } from '../../src/provider/load.js'
import { contractOfAny } from './contract.js'
import { onlyPrograms } from './vagrant-tools.js'

// Vagrant needs a second for every answer, and many times that on a busy machine.
vi.setConfig({ testTimeout: 60_000 })

const providers = await allProviders()

for (const provider of providers)
  contractOfAny(
    provider.name,
    () => provider,
    () => loadLab('iscsi'),
  )

describe('the choice of a provider', () => {
  test('every provider is registered under its own name', async () => {
    expect(providers.map(({ name }) => name)).toEqual(['uml', 'libvirt', 'virtualbox', 'hosts', 'cluster'])
    for (const provider of providers) expect(await providerNamed(provider.name)).toBe(provider)
  })

  test.each([
    { asked: 'libvirt', file: 'virtualbox', chosen: 'libvirt' },
    { asked: undefined, file: 'virtualbox', chosen: 'virtualbox' },
  ] as const)(
    'with $asked on the command line and $file in the lab file, the provider is $chosen',
    async ({ asked, file, chosen }) => {
      const found = await chooseProvider(asked, { provider: file }, new AbortController().signal)
      expect(found.name).toBe(chosen)
    },
  )

  test('the next provider is chosen when one does not work', async () => {
    // Stand-ins for a host with VirtualBox, and without what User-Mode Linux or libvirt need.
    await onlyPrograms({ vagrant: 'echo Vagrant 2.4.9', VBoxManage: 'echo 7.2.22r175245' })
    const signal = new AbortController().signal
    expect((await chooseProvider(undefined, { provider: undefined }, signal)).name).toBe('virtualbox')
  })

  test('the error lists every provider when none works', async () => {
    await onlyPrograms({})
    const signal = new AbortController().signal
    await expect(chooseProvider(undefined, { provider: undefined }, signal)).rejects.toMatchObject({
      code: 'no-provider',
      exitCode: 3,
      hint: 'lab doctor',
    })
  })
})
