/** The three ZooKeeper servers that `lab up` deploys, as experiments observe them and write to them. */
import type { Verdict } from '../plan/step.js'
import type { ExperimentContext } from '../trial/experiment-context.js'
import type { PodSeen } from '../trial/history.js'

export const zk = ({ labels }: PodSeen): boolean => labels['app'] === 'zk'

export const servers = ['zk-0', 'zk-1', 'zk-2'] as const

export const podNamed = (context: ExperimentContext, name: string): PodSeen | undefined =>
  context.history.pods.find((pod) => pod.name === name)

export const threeReady = (context: ExperimentContext): Verdict => {
  const pods = context.history.pods.filter(zk)
  return {
    ok: pods.length === 3 && pods.every(({ ready }) => ready),
    saw: pods
      .map(({ name, ready, phase, node }) => `${name} ${ready ? 'ready' : phase} on ${node ?? 'no node'}`)
      .join(', '),
  }
}

/** One command for each server, with its output on one line. */
export const ofEach = async (
  context: ExperimentContext,
  command: readonly string[],
): Promise<readonly string[]> => {
  const said: string[] = []
  for (const server of servers) said.push((await context.exec(server, command)).replaceAll('\n', ' '))
  return said
}

/** zkCli.sh echoes the request and prints messages; the value is on a line of its own. */
export const valueIn = (output: string, wanted: string): boolean =>
  output.split('\n').some((line) => line.trim() === wanted)

export const leaderElected = async (context: ExperimentContext): Promise<Verdict> => {
  const modes = await ofEach(context, ['zkServer.sh', 'status'])
  return {
    ok:
      modes.filter((mode) => mode.includes('leader')).length === 1 &&
      modes.filter((mode) => mode.includes('follower')).length === 2,
    saw: modes.map((mode, index) => `${servers[index] ?? ''}: ${mode.replace(/^Mode: /, '')}`).join(', '),
  }
}

const path = '/lab-hello'

export const put = async (context: ExperimentContext, value: string): Promise<void> => {
  await context.act(`write ${path} at zk-0`, async () => {
    await context.exec('zk-0', [
      'sh',
      '-c',
      `zkCli.sh deleteall ${path} >/dev/null 2>&1; zkCli.sh create ${path} '${value}'`,
    ])
  })
}

export const read = (
  context: ExperimentContext,
  title: string,
  server: string,
  value: string,
): Promise<number> =>
  context.until(title, 120, async () => {
    const said = await context.exec(server, ['sh', '-c', `zkCli.sh get ${path} 2>/dev/null`])
    return { ok: valueIn(said, value), saw: said.split('\n').at(-1)?.trim() ?? 'nothing' }
  })

/** The number of a server is its ordinal plus one. */
const serverOf = (context: ExperimentContext, id: number) => {
  const pod = `zk-${String(id - 1)}`
  return { pod, node: podNamed(context, pod)?.node ?? 'no node' }
}

export const withLedger = async (context: ExperimentContext, during: () => Promise<void>): Promise<void> => {
  // Every command that reads a lab file knows all experiments, and few need the databases' drivers.
  const { nodePortOf, zookeeperStore } = await import('./stores.js')
  const nodePort = await nodePortOf(context, 'zk-outside')
  await context.ledger(
    (run) => zookeeperStore({ dialer: context.dialer, nodePort, run }, (id) => serverOf(context, id)),
    during,
    { workload: 'statefulset/zk', replicas: servers.length, are: zk, within: 300 },
  )
}

export const forget = async (context: ExperimentContext): Promise<void> => {
  await context.exec('zk-0', ['sh', '-c', `zkCli.sh deleteall ${path} >/dev/null 2>&1 || true`])
}
