/** Text 004: a Cassandra ring, which a lab keeps up, grows by a member, and loses one. */
import { machinesWith } from '../lab/lab.js'
import type { Verdict } from '../plan/step.js'
import type { Bench, Experiment } from '../trial/experiment.js'
import { made, startedInOrder, untouched } from '../trial/claims.js'
import type { PodSeen } from '../trial/history.js'
import { cassandraStore, nodePortOf } from './stores.js'

const member = ({ labels }: PodSeen): boolean => labels['app'] === 'cassandra'

const members = (bench: Bench): readonly PodSeen[] => bench.history.pods.filter(member)

/** The two letters of each line of `nodetool status`: up or down, and normal, joining, leaving or moving. */
export const ringStates = (output: string): readonly string[] =>
  [...output.matchAll(/^([UD][NJLM])\s+\d/gm)].map(([, state = '']) => state)

/** What one member says of the ring. */
const ringSeenBy = async (bench: Bench, pod: string, count: number): Promise<Verdict> => {
  const states = ringStates(await bench.exec(pod, ['nodetool', 'status']))
  return {
    ok: states.length === count && states.every((state) => state === 'UN'),
    saw: `${pod}: ${states.join(', ') || 'no ring'}`,
  }
}

const keyspace = 'lab'
/** As the manifest has it. */
const datacenter = 'DC1-K8Demo'

/** CQL at QUORUM, by cqlsh in a pod. */
const ask = (bench: Bench, pod: string, text: string): Promise<string> =>
  bench.exec(pod, [
    'cqlsh',
    '--request-timeout=60',
    '--connect-timeout=30',
    '-e',
    `CONSISTENCY QUORUM; ${text}`,
  ])

const makeTable = async (bench: Bench, pod: string): Promise<void> => {
  await bench.act('make a keyspace of 3 copies', async () => {
    await ask(
      bench,
      pod,
      `CREATE KEYSPACE IF NOT EXISTS ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 3}; CREATE TABLE IF NOT EXISTS ${keyspace}.rows (id int PRIMARY KEY, text text);`,
    )
  })
}

const dropTable = async (bench: Bench, pod: string): Promise<void> => {
  await bench.act('remove the keyspace', () => ask(bench, pod, `DROP KEYSPACE IF EXISTS ${keyspace};`))
}

const write = (bench: Bench, pod: string, id: number, text: string): Promise<string> =>
  ask(bench, pod, `INSERT INTO ${keyspace}.rows (id, text) VALUES (${String(id)}, '${text}');`)

/** Rows by their numbers, as cqlsh prints a table. */
export const rowsIn = (output: string): ReadonlyMap<number, string> =>
  new Map(
    [...output.matchAll(/^\s*(\d+) \|\s*(.*?)\s*$/gm)].map(([, id = '', text = '']) => [Number(id), text]),
  )

const rows = async (bench: Bench, pod: string): Promise<ReadonlyMap<number, string>> =>
  rowsIn(await ask(bench, pod, `SELECT id, text FROM ${keyspace}.rows;`))

export const ring: Experiment = {
  workers: 4,
  workload: true,
  run: async (bench) => {
    const three = members(bench)
    for (const { name } of three)
      await bench.until(`${name} sees 3 members, up and normal`, 180, () => ringSeenBy(bench, name, 3))
    await makeTable(bench, 'cassandra-0')
    try {
      await bench.act('write a row at QUORUM at cassandra-0', () => write(bench, 'cassandra-0', 1, 'one'))
      const seen = await rows(bench, 'cassandra-2')
      bench.claim('it is read at QUORUM at cassandra-2', {
        ok: seen.get(1) === 'one',
        saw: seen.get(1) ?? 'no row',
      })
      const from = await bench.act('scale to 4', () =>
        bench.kubectl(['scale', 'statefulset/cassandra', '--replicas=4']),
      )
      const took = await bench.until(
        'cassandra-3 is ready',
        400,
        () => ({
          ok: members(bench).length === 4 && members(bench).every(({ ready }) => ready),
          saw: members(bench)
            .map(({ name, ready, phase }) => `${name} ${ready ? 'ready' : phase}`)
            .join(', '),
        }),
        from,
      )
      bench.figure('from 3 to 4 members', took)
      bench.claim('only cassandra-3 was made', {
        ok:
          made(bench.history, from, 1, member).ok && startedInOrder(bench.history, from, ['cassandra-3']).ok,
        saw: made(bench.history, from, 1, member).saw,
      })
      bench.claim('the other three were not touched', untouched(bench.history, from, three))
      for (const { name } of members(bench))
        await bench.until(`${name} sees 4 members, up and normal`, 180, () => ringSeenBy(bench, name, 4))
      const still = await rows(bench, 'cassandra-3')
      bench.claim('the row is read at the new member', {
        ok: still.get(1) === 'one',
        saw: still.get(1) ?? 'no row',
      })
      await bench.act('let cassandra-3 hand over its data, and scale to 3', async () => {
        await bench.kubectl(['exec', 'cassandra-3', '--', 'nodetool', 'decommission', '--force'], {
          timeout: 300,
        })
        await bench.kubectl(['scale', 'statefulset/cassandra', '--replicas=3'])
      })
      await bench.until('3 members are left', 200, () => ({
        ok: members(bench).length === 3,
        saw: members(bench)
          .map(({ name }) => name)
          .join(', '),
      }))
      // A member that comes back with the data of one that has left is not let in.
      await bench.kubectl(['delete', 'persistentvolumeclaim', 'cassandra-data-cassandra-3'], { timeout: 60 })
      await bench.until('the ring has 3 members again', 180, () => ringSeenBy(bench, 'cassandra-0', 3))
    } finally {
      await dropTable(bench, 'cassandra-0')
    }
  },
}

/** Rows that are written while a member is lost. */
const writes = 5

export const memberLost: Experiment = {
  workers: 3,
  workload: true,
  run: async (bench) => {
    await makeTable(bench, 'cassandra-0')
    try {
      await write(bench, 'cassandra-0', 0, 'before')
      const lost = members(bench).find(({ name }) => name === 'cassandra-2')
      const others = members(bench).filter(({ name }) => name !== 'cassandra-2')
      if (!machinesWith(bench.lab, 'worker').some(({ name }) => name === lost?.node))
        throw new Error('cassandra-2 is on no worker')
      const nodePort = await nodePortOf(bench, 'cassandra-outside')
      const store = (run: string) =>
        cassandraStore({ reach: bench.reach, nodePort, run }, datacenter, (address) => {
          const pod = bench.history.pods.find((candidate) => candidate.address === address)
          return pod && { pod: pod.name, node: pod.node ?? 'no node' }
        })
      await bench.ledger(store, async () => {
        const from = bench.now()
        await bench.fault({ fault: 'power-cut', machine: lost?.node ?? '' })
        // Until the others have noticed, after some 10 s, a question that waits for the lost member's answer is not
        // answered, and is asked again.
        for (let id = 1; id <= writes; id++) {
          const text = `after-${String(id)}`
          await bench.until(
            `row ${String(id)} is written and read at QUORUM while a member is off`,
            90,
            async () => {
              await write(bench, 'cassandra-0', id, text)
              const seen = (await rows(bench, 'cassandra-1')).get(id)
              return { ok: seen === text, saw: seen ?? 'no such row' }
            },
          )
        }
        bench.figure(
          `from the loss of a member until ${String(writes)} rows were written and read`,
          bench.now() - from,
        )
        await bench.until('the others call it down', 120, async () => {
          const states = ringStates(await bench.exec('cassandra-0', ['nodetool', 'status']))
          return { ok: states.filter((state) => state === 'DN').length === 1, saw: states.join(', ') }
        })
        bench.claim('the others were not touched', untouched(bench.history, from, others))
        const back = bench.now()
        await bench.heal()
        const took = await bench.until(
          'all three are up and normal again',
          400,
          () => ringSeenBy(bench, 'cassandra-0', 3),
          back,
        )
        bench.figure('from switching the node on until the ring is whole', took)
      })
      await bench.until('cassandra-2 has all rows', 120, async () => {
        const seen = await rows(bench, 'cassandra-2')
        return { ok: seen.size === writes + 1, saw: `${String(seen.size)} of ${String(writes + 1)}` }
      })
    } finally {
      await dropTable(bench, 'cassandra-0')
    }
  },
}
