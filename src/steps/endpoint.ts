/** Several control planes as one: the members of etcd, and the address at which the API server answers. */
import { type Lab, machinesWith, nodesOf } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { messageOf } from '../error.js'
import { machineCheck, shared } from './checks.js'
import { memberStepOf } from './control-plane.js'
import { controlPlanesAtWork, leaveEtcd, membersSeenBy, statusOf } from './etcd.js'
import { hasAddress } from './moving-address.js'

const phase = 'kubernetes'

/** The control planes that have the address of the API server on an interface, according to themselves. */
export const holdersOf = async (context: Context): Promise<readonly string[]> => {
  const { lab } = context
  const endpoint = lab.kubernetes?.endpoint ?? ''
  const found = await Promise.all(
    machinesWith(lab, 'control-plane').map(async ({ name }) =>
      (await hasAddress(context, name, endpoint)) ? [name] : [],
    ),
  )
  return found.flat()
}

const holders = shared(holdersOf)

/** Members by the machine that was asked; members that are not in the lab file are unexpected. */
const strangers = async (context: Context, lab: Lab): Promise<readonly string[]> => {
  const [via] = await controlPlanesAtWork(context, lab)
  if (via === undefined) return []
  const names = machinesWith(lab, 'control-plane').map(({ name }) => name)
  return (await membersSeenBy(context, via, { quorum: true }))
    .map(({ name }) => name ?? '')
    .filter((name) => name !== '' && !names.includes(name))
}

const membersCheck = (lab: Lab): Check => {
  const wanted = machinesWith(lab, 'control-plane')
    .map(({ name }) => name)
    .sort()
    .join(', ')
  return {
    id: 'etcd-members',
    title: `the members of etcd are ${wanted}, each with a vote, and each knows the others`,
    within: 60,
    hint: `lab up ${lab.name}`,
    probe: async (context) => {
      const views = await Promise.all(
        machinesWith(lab, 'control-plane').map(async ({ name }) => {
          const members = await membersSeenBy(context, name)
          return members
            .map(({ name = '', isLearner }) => {
              const called = name === '' ? 'one that never started' : name
              return isLearner ? `${called} (learner)` : called
            })
            .sort()
            .join(', ')
        }),
      )
      const different = [...new Set(views)]
      return { ok: different.length === 1 && different[0] === wanted, saw: different.join('; or: ') }
    },
  }
}

const leaderCheck = (lab: Lab): Check => ({
  id: 'etcd-leader',
  title: 'etcd has one leader, and every member follows it',
  within: 30,
  hint: `lab kubectl ${lab.name} -- -n kube-system logs -l component=etcd --tail=20`,
  probe: async (context) => {
    const machines = machinesWith(lab, 'control-plane')
    const [first] = machines
    if (!first) return { ok: false, saw: 'no control plane' }
    const [states, members] = await Promise.all([
      Promise.all(machines.map(({ name }) => statusOf(context, name))),
      membersSeenBy(context, first.name),
    ])
    const leaders = [...new Set(states.map(({ leader = '0' }) => leader))]
    const nameOf = (id: string): string =>
      members.find(({ ID }) => ID === id)?.name ?? (id === '0' ? 'no leader' : id)
    return {
      ok: leaders.length === 1 && leaders[0] !== '0',
      saw: `${leaders.map(nameOf).join(', ')}, term ${states[0]?.raftTerm ?? 'unknown'}`,
    }
  },
})

const holderCheck = (lab: Lab, endpoint: string): Check => ({
  id: 'endpoint-holder',
  title: `exactly one control plane has the address ${endpoint}`,
  within: 30,
  hint: `lab exec ${lab.name} control-plane -- journalctl -u keepalived -n 20 --no-pager`,
  probe: async (context) => {
    const names = await holders(context)
    return { ok: names.length === 1, saw: names.join(', ') || 'no control plane' }
  },
})

/** The API server of one machine, and the one that answers at the shared address: each asked from inside the lab. */
const answers = (lab: Lab, id: string, title: string, machine: string, address: string): Check =>
  machineCheck({
    id,
    title,
    machine,
    within: 60,
    hint: `lab exec ${lab.name} ${machine} -- curl --insecure https://${address}:6443/readyz?verbose`,
    // This endpoint needs no authentication.
    command: shell`curl --silent --show-error --insecure --max-time 10 https://${address}:6443/readyz`,
    judge: (output) => ({ ok: output === 'ok', saw: output.slice(0, 200) || 'no answer' }),
  })

/** @returns the step, if the lab has an address of its own for the API server */
export const proveEndpoint = (lab: Lab): readonly Step[] => {
  const endpoint = lab.kubernetes?.endpoint
  if (endpoint === undefined) return []
  const machines = machinesWith(lab, 'control-plane')
  return [
    {
      id: 'prove-endpoint',
      title: `Check that the control planes agree, and that one of them has ${endpoint}`,
      phase,
      needs: [...machines.map((machine) => memberStepOf(lab, machine)), 'forget-nodes'],
      apply: async (context, progress) => {
        for (const name of await strangers(context, lab))
          if (await leaveEtcd(context, lab, name))
            progress(`${name}, which is not in the lab file, was removed from etcd`)
        if ((await holdersOf(context)).length === 1) return
        for (const { name } of machines)
          await context
            .machine(name)
            .run(shell`/etc/lab/boot.d/20-endpoint`, { signal: context.signal, timeout: 60 })
            .catch((error: unknown) => {
              progress(messageOf(error))
            })
      },
      checks: [
        membersCheck(lab),
        leaderCheck(lab),
        holderCheck(lab, endpoint),
        ...machines.map(({ name, address }) =>
          answers(lab, `${name}-api-answers`, `the API server of ${name} is ready`, name, address),
        ),
        ...nodesOf(lab).map(({ name }) =>
          answers(
            lab,
            `${name}-endpoint-answers`,
            `${name} reaches a ready API server at ${endpoint}`,
            name,
            endpoint,
          ),
        ),
      ],
    },
  ]
}
