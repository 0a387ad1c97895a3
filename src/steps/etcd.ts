/**
 * etcd's members, as etcd itself reports them. They are asked through etcd's JSON gateway with kubeadm's certificates,
 * from the machine that they run on: this works without an API server, and without a quorum.
 */
import { LabError } from '../error.js'
import { type Lab, machinesWith } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { eventually } from './checks.js'

const certificates = '/etc/kubernetes/pki/etcd'

/**
 * Timeout of a request in seconds; without a leader, etcd itself gives up after 7 s (its default election timeout + 5
 * s).
 */
const patience = 8

/** A 64-bit number, which JSON has as a string. */
type Id = string

interface Member {
  readonly ID: Id
  /** Empty until it has started for the first time. */
  readonly name?: string
  readonly isLearner?: boolean
  readonly peerURLs?: readonly string[]
}

interface Status {
  readonly header: { readonly member_id: Id }
  /** Undefined or `0`: it knows of none. */
  readonly leader?: Id
  readonly raftTerm?: string
  readonly isLearner?: boolean
  readonly errors?: readonly string[]
}

/** @throws LabError if etcd on that machine does not answer, or refuses */
const ask = async <T>(context: Context, machine: string, path: string, body: object = {}): Promise<T> =>
  JSON.parse(
    await context
      .machine(machine)
      .run(
        shell`curl --silent --show-error --fail-with-body --max-time ${patience} --cacert ${certificates}/ca.crt --cert ${certificates}/healthcheck-client.crt --key ${certificates}/healthcheck-client.key --data @- https://127.0.0.1:2379/v3/${path}`,
        { input: JSON.stringify(body), signal: context.signal, timeout: patience + 5 },
      ),
  ) as T

/** The members, as etcd on this machine knows them; `quorum`: as most of them do. */
export const membersSeenBy = async (
  context: Context,
  machine: string,
  { quorum = false } = {},
): Promise<readonly Member[]> =>
  (
    await ask<{ members?: readonly Member[] }>(context, machine, 'cluster/member/list', {
      linearizable: quorum,
    })
  ).members ?? []

/** What the member on this machine reports about itself. */
export const statusOf = (context: Context, machine: string): Promise<Status> =>
  ask(context, machine, 'maintenance/status')

/** The machine whose member leads; undefined if unknown. The first answer is used. */
export const leaderOf = async (context: Context): Promise<string | undefined> => {
  for (const { name } of machinesWith(context.lab, 'control-plane')) {
    try {
      const [{ leader }, members] = await Promise.all([statusOf(context, name), membersSeenBy(context, name)])
      const found = members.find(({ ID }) => ID === leader)?.name
      if (found !== undefined && found !== '') return found
    } catch {
      context.signal.throwIfAborted()
    }
  }
  return undefined
}

/** How a member is named before and after its first start: by the address of its machine, or by its name. */
const isOf = ({ name, peerURLs = [] }: Member, machine: string, address: string | undefined): boolean =>
  name === machine || (address !== undefined && peerURLs.includes(`https://${address}:2380`))

/**
 * Removes the member of a machine from the cluster, if there is one: its disk is lost, or the machine will be removed.
 * @param via a machine with a healthy member
 * @returns whether there was one
 * @throws LabError if most members do not agree, for example because they are off
 */
export const removeMember = async (context: Context, machine: string, via: string): Promise<boolean> => {
  const address = context.lab.machines.find(({ name }) => name === machine)?.address
  const member = (await membersSeenBy(context, via, { quorum: true })).find((each) =>
    isOf(each, machine, address),
  )
  if (!member) return false
  await ask(context, via, 'cluster/member/remove', { ID: member.ID })
  return true
}

/** Control planes other than this one whose etcd answers, and whether it knows a leader. */
const answering = async (
  context: Context,
  lab: Lab,
  except?: string,
): Promise<readonly { readonly name: string; readonly led: boolean }[]> => {
  const others = machinesWith(lab, 'control-plane').filter(({ name }) => name !== except)
  const found = await Promise.all(
    others.map(async ({ name }) => {
      try {
        const { leader = '0' } = await statusOf(context, name)
        return [{ name, led: leader !== '0' }]
      } catch {
        context.signal.throwIfAborted()
        return []
      }
    }),
  )
  return found.flat()
}

/** Control planes other than this one whose etcd answers and has a leader. */
export const controlPlanesAtWork = async (
  context: Context,
  lab: Lab,
  except?: string,
): Promise<readonly string[]> =>
  (await answering(context, lab, except)).flatMap(({ name, led }) => (led ? [name] : []))

/** Seconds for etcd to elect a leader: removing the member that led begins an election. */
const electionDeadline = 60

/**
 * Removes the member of a machine through any other control plane, and waits for a leader if there is none at the
 * moment: a member that is removed too late counts as lost, and can cost the others their quorum.
 * @returns whether there was one; false also if no other etcd answers, as in a stopped lab
 * @throws LabError if there is no leader, or most members do not agree
 */
export const leaveEtcd = (context: Context, lab: Lab, machine: string): Promise<boolean> =>
  eventually(context, electionDeadline, async () => {
    const others = await answering(context, lab, machine)
    const via = others.find(({ led }) => led)?.name
    if (via !== undefined) return removeMember(context, machine, via)
    if (others.length === 0) return false
    throw new LabError(
      'no-quorum',
      `etcd has no leader, so ${machine} cannot be removed from it: asked ${others.map(({ name }) => name).join(', ')}`,
      { hint: `lab verify ${lab.name}` },
    )
  })
