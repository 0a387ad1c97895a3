/** The cluster's network as a pod on each worker sees it: DNS, pod routing and the database's Service. */
import { type DatabaseSpec, type Lab, machinesWith } from '../lab/lab.js'
import type { Check, Context, Step } from '../context.js'
import { render } from '../render.js'
import { apply, shared } from './checks.js'
import { clientPods, images, rowText, serverPods } from './database-pods.js'
import { describePod, isReady, type Pod, pods } from './pods.js'

const phase = 'database'

export const startClients = (lab: Lab, database: DatabaseSpec): Step => ({
  id: 'start-clients',
  title: 'Start a database client on every worker',
  phase,
  needs: ['deploy-database'],
  apply: (context) =>
    apply(context, render('manifests/client.yaml', { ...database, image: images.database })),
  checks: [
    {
      id: 'clients-run',
      title: 'a client pod runs on every worker',
      within: 90,
      hint: `lab kubectl ${lab.name} -- describe daemonsets,pods -l app=${database.name}-client`,
      probe: async (context) => {
        const found = await clientPods(context, database)
        const missing = machinesWith(lab, 'worker').filter(
          ({ name }) => !found.some((pod) => isReady(pod) && pod.spec.nodeName === name),
        )
        return {
          ok: missing.length === 0,
          saw: found.map((pod) => describePod(pod)).join('; ') || 'none',
        }
      },
    },
  ],
})

interface InsideView {
  /** The address of the Service's name. */
  readonly address: string
  /** The pods that were tried, and the names of those that did not answer. */
  readonly doors: readonly Pod[]
  readonly unreached: readonly string[]
  readonly row: string
}

/** The pods that every lab has and a port of each: CoreDNS's readiness port, and the database's. */
const doorsOf = async (
  context: Context,
  database: DatabaseSpec,
): Promise<readonly (readonly [Pod, number])[]> => {
  const all = await pods(context)
  const dns = all.filter(({ metadata }) => metadata.labels?.['k8s-app'] === 'kube-dns')
  const server = await serverPods(context, database)
  return [...dns.map((pod) => [pod, 8181] as const), ...server.map((pod) => [pod, 3306] as const)].filter(
    ([pod]) => isReady(pod),
  )
}

/** Answers all checks of a worker with one exec in its client pod, since each exec takes half a second. */
const lookFromInside = async (
  context: Context,
  database: DatabaseSpec,
  worker: string,
): Promise<InsideView> => {
  const pod = (await clientPods(context, database)).find((candidate) => candidate.spec.nodeName === worker)
  if (!pod) throw new Error(`no client pod on ${worker}`)
  const doors = await doorsOf(context, database)
  const { cluster, kubernetes } = context.lab
  // The domain of an existing cluster is unknown; its pods search it.
  const name = cluster
    ? `${database.name}.${cluster.namespace ?? ''}.svc`
    : `${database.name}.default.svc.${kubernetes?.dnsDomain ?? ''}`
  const script = [
    `echo "address $(getent ahostsv4 ${name} | head -n 1)"`,
    ...doors.map(
      ([door, port]) =>
        `timeout 3 bash -c '</dev/tcp/${door.status.podIP ?? ''}/${String(port)}' 2>/dev/null || echo unreached ${door.metadata.name}`,
    ),
    'export MYSQL_PWD=$MARIADB_PASSWORD',
    `echo "row $(mariadb --connect-timeout=5 -h ${database.name} -u "$MARIADB_USER" -N -B -e 'SELECT text FROM lab_row WHERE id = 1' ${database.database} 2>&1)"`,
  ].join('\n')
  const output = await context.kubectl.run(['exec', pod.metadata.name, '--', 'bash', '-c', script], {
    timeout: 10,
  })
  const lines = (word: string): readonly string[] =>
    output
      .split('\n')
      .filter((line) => line.startsWith(`${word} `))
      .map((line) => line.slice(word.length + 1))
  return {
    address: lines('address')[0] ?? '',
    doors: doors.map(([door]) => door),
    unreached: lines('unreached'),
    row: lines('row')[0] ?? '',
  }
}

/** Whether pods on other nodes answer. */
const podToPod = (lab: Lab, worker: string, look: (context: Context) => Promise<InsideView>): Check => ({
  id: `${worker}-pod-to-pod`,
  title: `a pod on ${worker} reaches pods on other nodes`,
  machine: worker,
  within: 60,
  hint: `lab exec ${lab.name} ${worker} -- ip route`,
  probe: async (context) => {
    const { doors, unreached } = await look(context)
    const on = [...new Set(doors.map(({ spec }) => spec.nodeName))]
    return {
      ok: unreached.length === 0 && on.some((node) => node !== worker),
      saw:
        unreached.length === 0
          ? `reached ${String(doors.length)} pods on ${on.join(', ') || 'no node'}`
          : `not reached: ${unreached.join(', ')}`,
    }
  },
})

export const proveInside = (lab: Lab, database: DatabaseSpec, worker: string): Step => {
  const look = shared((context) => lookFromInside(context, database, worker))
  return {
    id: `prove-inside-${worker}`,
    title: `Read the row and reach every pod from inside, on ${worker}`,
    phase,
    machine: worker,
    needs: ['write-row', 'start-clients', 'install-dns'],
    checks: [
      {
        id: `${worker}-dns`,
        title: `a pod on ${worker} finds ${database.name} by its name`,
        machine: worker,
        within: 60,
        hint: `lab kubectl ${lab.name} -- -n kube-system logs -l k8s-app=kube-dns`,
        probe: async (context) => {
          const { address } = await look(context)
          const service = await context.kubectl.get<{ spec: { clusterIP: string } }>('service', database.name)
          return { ok: address.startsWith(`${service.spec.clusterIP} `), saw: address || 'no answer' }
        },
      },
      // The network between the nodes of an existing cluster is not the lab's.
      ...(lab.cluster ? [] : [podToPod(lab, worker, look)]),
      {
        id: `${worker}-row-inside`,
        title: `a pod on ${worker} reads the row through the Service`,
        machine: worker,
        within: 60,
        hint: `lab kubectl ${lab.name} -- get endpointslices`,
        probe: async (context) => {
          const { row } = await look(context)
          return { ok: row === rowText(context.lab), saw: row || 'no row' }
        },
      },
    ],
  }
}
