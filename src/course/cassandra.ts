/** Text 004: a Cassandra ring, which lab up deploys, gains a member and loses one. */
import { machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext, Experiment } from '../trial/experiment-context.js'
import { made, startedInOrder, untouched } from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'

const member = ({ labels }: PodSeen): boolean => labels['app'] === 'cassandra'

const members = (context: ExperimentContext): readonly PodSeen[] => context.history.pods.filter(member)

/** The two letters of each line of `nodetool status`: up or down, and normal, joining, leaving or moving. */
export const ringStates = (output: string): readonly string[] =>
  [...output.matchAll(/^([UD][NJLM])\s+\d/gm)].map(([, state = '']) => state)

/** The ring as one member sees it. */
const ringSeenBy = async (context: ExperimentContext, pod: string, count: number): Promise<Verdict> => {
  const states = ringStates(await context.exec(pod, ['nodetool', 'status']))
  return {
    ok: states.length === count && states.every((state) => state === 'UN'),
    saw: `${pod}: ${states.join(', ') || 'no ring'}`,
  }
}

const keyspace = 'lab'
/** The datacenter in the manifest. */
const datacenter = 'DC1-K8Demo'

/** CQL at QUORUM, by cqlsh in a pod. */
const ask = (context: ExperimentContext, pod: string, text: string): Promise<string> =>
  context.exec(pod, [
    'cqlsh',
    '--request-timeout=60',
    '--connect-timeout=30',
    '-e',
    `CONSISTENCY QUORUM; ${text}`,
  ])

const makeTable = async (context: ExperimentContext, pod: string): Promise<void> => {
  await context.act('make a keyspace of 3 copies', async () => {
    await ask(
      context,
      pod,
      `CREATE KEYSPACE IF NOT EXISTS ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 3}; CREATE TABLE IF NOT EXISTS ${keyspace}.rows (id int PRIMARY KEY, text text);`,
    )
  })
}

const dropTable = async (context: ExperimentContext, pod: string): Promise<void> => {
  await context.act('remove the keyspace', () => ask(context, pod, `DROP KEYSPACE IF EXISTS ${keyspace};`))
}

const write = (context: ExperimentContext, pod: string, id: number, text: string): Promise<string> =>
  ask(context, pod, `INSERT INTO ${keyspace}.rows (id, text) VALUES (${String(id)}, '${text}');`)

/** Rows by number, parsed from the table that cqlsh prints. */
export const rowsIn = (output: string): ReadonlyMap<number, string> =>
  new Map(
    [...output.matchAll(/^\s*(\d+) \|\s*(.*?)\s*$/gm)].map(([, id = '', text = '']) => [Number(id), text]),
  )

const rows = async (context: ExperimentContext, pod: string): Promise<ReadonlyMap<number, string>> =>
  rowsIn(await ask(context, pod, `SELECT id, text FROM ${keyspace}.rows;`))

export const ring: Experiment = {
  name: 'ring',
  description:
    'A Cassandra ring of 3 grows to 4: every member sees all as up and normal, and a row is read at QUORUM',
  workers: 4,
  workload: true,
  run: async (context) => {
    const three = members(context)
    for (const { name } of three)
      await context.until(`${name} sees 3 members, up and normal`, 180, () => ringSeenBy(context, name, 3))
    await makeTable(context, 'cassandra-0')
    try {
      await context.act('write a row at QUORUM at cassandra-0', () => write(context, 'cassandra-0', 1, 'one'))
      const seen = await rows(context, 'cassandra-2')
      context.claim('it is read at QUORUM at cassandra-2', {
        ok: seen.get(1) === 'one',
        saw: seen.get(1) ?? 'no row',
      })
      const from = await context.act('scale to 4', () =>
        context.kubectl(['scale', 'statefulset/cassandra', '--replicas=4']),
      )
      const took = await context.until(
        'cassandra-3 is ready',
        400,
        () => ({
          ok: members(context).length === 4 && members(context).every(({ ready }) => ready),
          saw: members(context)
            .map(({ name, ready, phase }) => `${name} ${ready ? 'ready' : phase}`)
            .join(', '),
        }),
        from,
      )
      context.figure('from 3 to 4 members', took)
      context.claim('only cassandra-3 was made', {
        ok:
          made(context.history, from, 1, member).ok &&
          startedInOrder(context.history, from, ['cassandra-3']).ok,
        saw: made(context.history, from, 1, member).saw,
      })
      context.claim('the other three were not touched', untouched(context.history, from, three))
      for (const { name } of members(context))
        await context.until(`${name} sees 4 members, up and normal`, 180, () => ringSeenBy(context, name, 4))
      const still = await rows(context, 'cassandra-3')
      context.claim('the row is read at the new member', {
        ok: still.get(1) === 'one',
        saw: still.get(1) ?? 'no row',
      })
      await context.act('let cassandra-3 hand over its data, and scale to 3', async () => {
        await context.kubectl(['exec', 'cassandra-3', '--', 'nodetool', 'decommission', '--force'], {
          timeout: 300,
        })
        await context.kubectl(['scale', 'statefulset/cassandra', '--replicas=3'])
      })
      await context.until('3 members are left', 200, () => ({
        ok: members(context).length === 3,
        saw: members(context)
          .map(({ name }) => name)
          .join(', '),
      }))
      // The ring refuses a member that comes back with the data of one that has left.
      await context.kubectl(['delete', 'persistentvolumeclaim', 'cassandra-data-cassandra-3'], {
        timeout: 60,
      })
      await context.until('the ring has 3 members again', 180, () => ringSeenBy(context, 'cassandra-0', 3))
    } finally {
      await dropTable(context, 'cassandra-0')
    }
  },
}

/** Number of rows written while a member is down. */
const writes = 5

export const memberLost: Experiment = {
  name: 'member-lost',
  description: 'A member of a Cassandra ring is lost: rows are still written and read at QUORUM',
  workers: 3,
  faults: ['power-cut'],
  workload: true,
  run: async (context) => {
    await makeTable(context, 'cassandra-0')
    try {
      await write(context, 'cassandra-0', 0, 'before')
      const lost = members(context).find(({ name }) => name === 'cassandra-2')
      const others = members(context).filter(({ name }) => name !== 'cassandra-2')
      if (!machinesWith(context.lab, 'worker').some(({ name }) => name === lost?.node))
        throw new Error('cassandra-2 is on no worker')
      // Every command that reads a lab file loads all experiments, and few need the databases' drivers.
      const { cassandraStore, nodePortOf } = await import('./stores.js')
      const nodePort = await nodePortOf(context, 'cassandra-outside')
      const store = (run: string) =>
        cassandraStore({ dialer: context.dialer, nodePort, run }, datacenter, (address) => {
          const pod = context.history.pods.find((candidate) => candidate.address === address)
          return pod && { pod: pod.name, node: pod.node ?? 'no node' }
        })
      await context.ledger(store, async () => {
        const from = context.now()
        await context.fault({ fault: 'power-cut', machine: lost?.node ?? '' })
        // Until the others have noticed, after about 10 s, a query that waits for the lost member times out and is
        // repeated.
        for (let id = 1; id <= writes; id++) {
          const text = `after-${String(id)}`
          await context.until(
            `row ${String(id)} is written and read at QUORUM while a member is off`,
            90,
            async () => {
              await write(context, 'cassandra-0', id, text)
              const seen = (await rows(context, 'cassandra-1')).get(id)
              return { ok: seen === text, saw: seen ?? 'no such row' }
            },
          )
        }
        context.figure(
          `from the loss of a member until ${String(writes)} rows were written and read`,
          context.now() - from,
        )
        await context.until('the other members report it as down', 120, async () => {
          const states = ringStates(await context.exec('cassandra-0', ['nodetool', 'status']))
          return { ok: states.filter((state) => state === 'DN').length === 1, saw: states.join(', ') }
        })
        context.claim('the others were not touched', untouched(context.history, from, others))
        const back = context.now()
        await context.heal()
        const took = await context.until(
          'all three are up and normal again',
          400,
          () => ringSeenBy(context, 'cassandra-0', 3),
          back,
        )
        context.figure('from switching the node on until the ring is complete', took)
      })
      await context.until('cassandra-2 has all rows', 120, async () => {
        const seen = await rows(context, 'cassandra-2')
        return { ok: seen.size === writes + 1, saw: `${String(seen.size)} of ${String(writes + 1)}` }
      })
    } finally {
      await dropTable(context, 'cassandra-0')
    }
  },
}
