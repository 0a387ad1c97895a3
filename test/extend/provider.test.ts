/**
 * A provider is one module and one entry in a list: this test adds one whose machines only answer SSH, and runs a
 * plan.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Context, Plan, Step } from '../../src/context.js'
import type { Lab, ProviderName } from '../../src/lab/lab.js'
import { loadLab, parseLab, registry } from '../../src/registry.js'
import { leftOutLines } from '../../src/plan/plan.js'
import { runPlan, succeeded } from '../../src/plan/runner.js'
import { apiEndpointOf, type Provider } from '../../src/provider/provider.js'
import { allProviders, chooseProvider, providerNamed } from '../../src/provider/load.js'
import { openSession } from '../../src/session.js'
import { pathsOf, writePrivate } from '../../src/state.js'
import { fileOptions } from '../../src/steps/machines.js'
import { planDown, planGiveBack, planStop, planUp } from '../../src/up.js'
import { refusalOf } from '../../src/fault/fault.js'
import { faultNamed } from '../../src/trial/injection.js'
import { temporaryFolder } from '../helpers/folder.js'
import { clientKeys, TestSshServer } from '../helpers/ssh-server.js'
import { contractOfAny } from '../provider/contract.js'

vi.mock('../../src/providers.js', async (original) => {
  const list: typeof import('../../src/providers.js') = await original()
  const providers = {
    ...list.providers,
    'ssh-only': { module: '../../test/extend/ssh-only', kubernetes: 'packages' },
  } as const
  return {
    providers,
    providerNames: Object.keys(providers),
    providerEntry: (name: keyof typeof providers) => providers[name],
  }
})

const name = 'ssh-only' as ProviderName
const provider: Provider = await providerNamed(name)

contractOfAny(
  name,
  () => provider,
  () => loadLab('iscsi'),
)

const before = process.env['LAB_STATE']
beforeEach(async () => {
  process.env['LAB_STATE'] = await temporaryFolder()
})
afterEach(() => {
  if (before === undefined) Reflect.deleteProperty(process.env, 'LAB_STATE')
  else process.env['LAB_STATE'] = before
})

const never = new AbortController().signal
const planFor = async (lab: Lab): Promise<Plan> => planUp(lab, provider, await fileOptions(lab, provider))
const ids = ({ steps }: { readonly steps: readonly Pick<Step, 'id'>[] }): readonly string[] =>
  steps.map(({ id }) => id)

/** The lab's machines are this host's shell behind a real SSH server, which only the lab's key can enter. */
const reachable = async (lab: Lab): Promise<Context & { close(): Promise<void> }> => {
  const server = await TestSshServer.start()
  vi.stubEnv('LAB_TEST_SSH', server.path)
  await writePrivate(pathsOf(lab).privateKey, clientKeys.privateKey)
  await writePrivate(`${pathsOf(lab).privateKey}.pub`, clientKeys.publicKey)
  for (const machine of lab.machines) {
    const path = `${pathsOf(lab).machine(machine.name)}/host_key`
    await writePrivate(path, clientKeys.privateKey)
    await writePrivate(`${path}.pub`, `ssh-ed25519 ${server.endpoint().hostKey} ${machine.name}`)
  }
  return openSession(lab, provider, never, 'false')
}

describe('a provider of machines that only answer over SSH', () => {
  test('an added provider is listed with the others, and can be chosen on the command line and in a lab file', async () => {
    expect((await allProviders()).map((each) => each.name)).toEqual([
      'uml',
      'libvirt',
      'virtualbox',
      'hosts',
      'cluster',
      name,
    ])
    expect((await chooseProvider(name, { provider: undefined }, never)).name).toBe(name)
    const text = `
apiVersion: lab/v1
name: hosts
provider: ssh-only
machines: [{ name: one, role: initiator, address: 192.168.56.71, memory: 256MiB }]
`
    expect(() => parseLab(text, 'hosts.yaml')).not.toThrow(/provider/)
  })

  test('an added provider gets a plan without the steps that it does not support, each with the reason', async () => {
    const plan = await planFor(await loadLab('iscsi'))
    expect(leftOutLines(plan)).toEqual([
      "ssh-only does not make a network: left out: Make the lab's network 192.168.56.0/24",
      'ssh-only does not make machines: left out: Boot target, Boot initiator',
      expect.stringMatching(/^ssh-only gives a machine no disks for LUNs: left out: Serve .*Log in to /),
    ])
    expect(ids(plan)).toEqual([
      'reach-target',
      'configure-target',
      'reach-initiator',
      'configure-initiator',
      'prepare-initiator-initiator',
    ])
    expect(plan.steps[0]?.needs).toEqual([])
  })

  test('an added provider gets all of Kubernetes, with nodes that pull their images themselves', async () => {
    const lab = await loadLab('deployment-ha')
    const plan = await planFor(lab)
    expect(ids(plan)).toContain('init-control-plane')
    expect(ids(plan).filter((id) => id.startsWith('load-images'))).toEqual([])
    const master = lab.machines.find(({ role }) => role === 'control-plane')
    expect(await apiEndpointOf(provider, lab)).toBe(`https://${master?.address ?? ''}:6443`)
  })

  test('an added provider gets its plan run over SSH, with every check asked', async () => {
    const lab = await loadLab('iscsi')
    const session = await reachable(lab)
    try {
      const plan = await planFor(lab)
      const looked = await runPlan(plan, 'check', session, () => undefined)
      expect(looked.results.map(({ step }) => step.id)).toEqual(ids(plan))
      for (const { step, checks } of looked.results)
        expect([step.id, checks.length]).toEqual([step.id, step.checks.length])
      // Only steps that change nothing on a correct machine are applied, because the machine is this host.
      const reached = {
        title: 'Reach them',
        steps: plan.steps
          .filter(({ id }) => id.startsWith('reach-'))
          .map((step): Step => ({ ...step, checks: [step.checks[0]] })),
      }
      const report = await runPlan(reached, 'apply', session, () => undefined)
      expect(succeeded(report)).toBe(true)
      expect(report.results).toHaveLength(2)
    } finally {
      await session.close()
    }
  }, 60_000)

  test('an added provider refuses faults that need a network or a pause, and says what it lacks', () => {
    const refused = (fault: string) => refusalOf(faultNamed(registry, fault), provider)
    expect(refused('power-cut')).toBe('ssh-only cannot switch a machine off')
    expect(refused('hang')).toBe('ssh-only cannot pause a machine')
    expect(refused('packet-loss')).toBeUndefined()
  })

  test('lab stop leaves the machines of an added provider on, and lab down reverts what lab up changed and forgets the lab', async () => {
    const lab = await loadLab('iscsi-ha')
    const options = await fileOptions(lab, provider)
    const stop = planStop(lab, provider, options)
    expect(ids(stop)).toEqual(['watch-workers'])
    expect(leftOutLines(stop).join()).toMatch(/does not make machines: left out: Boot target, Boot master/)
    expect(ids(planGiveBack(lab, provider, options))).toEqual(['watch-workers'])
    const report = await runPlan(planDown(lab, [provider]), 'undo', { signal: never }, () => undefined)
    expect(succeeded(report)).toBe(true)
    expect(await provider.leftovers(lab)).toEqual([])
  })
})
