/** Checks of several control planes, with members of etcd that answer as the test says. */
import { describe, expect, it } from 'vitest'
import type { Context } from '../../src/context.js'
import { loadLab } from '../../src/registry.js'
import { notReadyYet } from '../../src/steps/control-plane.js'
import { holdersOf, proveEndpoint } from '../../src/steps/endpoint.js'
import { controlPlanesAtWork, leaderOf, leaveEtcd, removeMember } from '../../src/steps/etcd.js'

const lab = await loadLab('control-planes')

interface Member {
  readonly ID: string
  readonly name?: string
  readonly isLearner?: boolean
  readonly peerURLs?: readonly string[]
}

interface Etcd {
  /** Undefined: it does not answer. */
  readonly leader?: string
  readonly members?: readonly Member[]
  /** The output of `ip` about the address of the API server. */
  readonly address?: string
}

const member = (number: number, more: Partial<Member> = {}): Member => ({
  ID: String(number),
  name: `master${String(number)}`,
  peerURLs: [`https://192.168.56.1${String(number)}:2380`],
  ...more,
})
const three = [member(1), member(2), member(3)]

/** @param states of the machines; @param removed gets the ids of members that are removed */
const contextWith = (states: Readonly<Record<string, Etcd>>, removed: string[] = []): Context => {
  const machine = (name: string) => {
    const { leader, members = three, address = '' } = states[name] ?? {}
    const answer = (command: string, input = ''): Promise<string> => {
      if (command.startsWith('ip ')) return Promise.resolve(address)
      if (leader === undefined) return Promise.reject(new Error(`${name}: no answer`))
      if (command.includes('member/list')) return Promise.resolve(JSON.stringify({ members }))
      if (command.includes('maintenance/status'))
        return Promise.resolve(JSON.stringify({ header: { member_id: name }, leader, raftTerm: '3' }))
      if (command.includes('member/remove')) {
        removed.push((JSON.parse(input) as { ID: string }).ID)
        return Promise.resolve('{}')
      }
      return Promise.resolve('')
    }
    return {
      run: (command: { text: string }, options?: { input?: string }) => answer(command.text, options?.input),
      try: async (command: { text: string }) => ({
        exitCode: 0,
        stdout: await answer(command.text),
        stderr: '',
      }),
    }
  }
  return { lab, machine, provider: {}, signal: new AbortController().signal } as unknown as Context
}

const all = (etcd: Etcd): Readonly<Record<string, Etcd>> => ({ master1: etcd, master2: etcd, master3: etcd })

const ask = async (id: string, context: Context) => {
  const check = proveEndpoint(lab)[0]?.checks.find((each) => each.id === id)
  if (!check) throw new Error(`no check ${id}`)
  return check.probe(context)
}

describe('the members of etcd', () => {
  it('the members of etcd are good if every machine knows all three, each with a vote', async () => {
    expect(await ask('etcd-members', contextWith(all({ leader: '1' })))).toEqual({
      ok: true,
      saw: 'master1, master2, master3',
    })
  })

  it.each([
    ['one is missing', { leader: '1', members: [member(1), member(2)] }, 'master1, master2'],
    [
      'one is still a learner',
      { leader: '1', members: [member(1), member(2), member(3, { isLearner: true })] },
      'master3 (learner)',
    ],
    [
      'one has never started',
      { leader: '1', members: [member(1), member(2), member(3, { name: '' })] },
      'one that never started',
    ],
    ['there is a stranger', { leader: '1', members: [...three, { ID: '9', name: 'old' }] }, 'old'],
  ])('the members of etcd are not good if %s', async (_, etcd, saw) => {
    const verdict = await ask('etcd-members', contextWith(all(etcd)))
    expect(verdict.ok).toBe(false)
    expect(verdict.saw).toContain(saw)
  })

  it('the members of etcd are not good if two machines know different ones', async () => {
    const states = { ...all({ leader: '1' }), master3: { leader: '3', members: [member(3)] } }
    expect((await ask('etcd-members', contextWith(states))).ok).toBe(false)
  })
})

describe('the leader of etcd', () => {
  it('the leader of etcd is named, with its term', async () => {
    expect(await ask('etcd-leader', contextWith(all({ leader: '2' })))).toEqual({
      ok: true,
      saw: 'master2, term 3',
    })
    expect(await leaderOf(contextWith({ ...all({ leader: '2' }), master1: {} }))).toBe('master2')
  })

  it.each([
    ['no member leads', all({ leader: '0' })],
    ['two members are followed', { ...all({ leader: '2' }), master3: { leader: '3' } }],
  ])('the leader of etcd is not good if %s', async (_, states) => {
    expect((await ask('etcd-leader', contextWith(states))).ok).toBe(false)
  })

  it('the leader of etcd is unknown if no member answers', async () => {
    expect(await leaderOf(contextWith({}))).toBeUndefined()
  })
})

describe('the address of the API server', () => {
  const has = { leader: '1', address: 'vec0 UNKNOWN 192.168.56.10/32' }

  it('the address of the API server is good on exactly one machine, and bad on none or two', async () => {
    const one = contextWith({ ...all({ leader: '1' }), master2: has })
    expect(await ask('endpoint-holder', one)).toEqual({ ok: true, saw: 'master2' })
    expect(await holdersOf(one)).toEqual(['master2'])
    expect(await ask('endpoint-holder', contextWith(all({ leader: '1' })))).toEqual({
      ok: false,
      saw: 'no control plane',
    })
    const two = contextWith({ ...all({ leader: '1' }), master1: has, master2: has })
    expect(await ask('endpoint-holder', two)).toEqual({ ok: false, saw: 'master1, master2' })
  })
})

describe('a member that is gone', () => {
  it('a member that is gone is removed by its name', async () => {
    const removed: string[] = []
    expect(await removeMember(contextWith(all({ leader: '1' }), removed), 'master3', 'master1')).toBe(true)
    expect(removed).toEqual(['3'])
  })

  it('a member that is gone is removed by the address of its machine if it never started', async () => {
    const removed: string[] = []
    const members = [member(1), member(2), member(3, { name: '' })]
    await removeMember(contextWith(all({ leader: '1', members }), removed), 'master3', 'master1')
    expect(removed).toEqual(['3'])
  })

  it('a member that is gone is not removed if etcd does not have it', async () => {
    const removed: string[] = []
    const members = [member(1), member(2)]
    expect(
      await removeMember(contextWith(all({ leader: '1', members }), removed), 'master3', 'master1'),
    ).toBe(false)
    expect(removed).toEqual([])
  })

  it('a lost member is removed once etcd has a leader again', async () => {
    const removed: string[] = []
    const states: Record<string, Etcd> = { master1: { leader: '0' } }
    setTimeout(() => (states['master1'] = { leader: '1' }), 300)
    expect(await leaveEtcd(contextWith(states, removed), lab, 'master3')).toBe(true)
    expect(removed).toEqual(['3'])
  })

  it('a lost member is not waited for if no other one answers, as in a stopped lab', async () => {
    expect(await leaveEtcd(contextWith({ master3: { leader: '3' } }), lab, 'master3')).toBe(false)
  })

  it('a member that is gone is removed through a member that has a leader', async () => {
    const states = { master1: {}, master2: { leader: '0' }, master3: { leader: '3' } }
    expect(await controlPlanesAtWork(contextWith(states), lab)).toEqual(['master3'])
    expect(await controlPlanesAtWork(contextWith(states), lab, 'master3')).toEqual([])
  })
})

it('a member that is gone is not looked for in a lab whose API server has no address of its own', async () => {
  expect(proveEndpoint(await loadLab('iscsi-ha'))).toEqual([])
})

it('the check of an API server names only those parts that are not ready', () => {
  const words =
    'kubectl get --raw=/readyz: Error from server (InternalError): an error on the server ("[+]ping ok\\n[-]etcd failed: reason withheld\\n[+]informer-sync ok\\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\\nreadyz check failed") has prevented the request from succeeding'
  expect(notReadyYet(words)).toEqual(['etcd', 'poststarthook/rbac/bootstrap-roles'])
  expect(notReadyYet('Unable to connect to the server: EOF')).toEqual([])
})
