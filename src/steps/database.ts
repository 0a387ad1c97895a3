/** The database on the LUN: secret, the walkthrough's first pod, Deployment, Service, and a row in and out. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise'
import {
  type DatabaseSpec,
  type DatabaseVolume,
  discoveryChapOf,
  type Lab,
  type MachineSpec,
  machinesWith,
  nfsServerOf,
  nodesOf,
  portalOf,
  type TargetSpec,
  targetNamed,
} from '../lab/lab.js'
import { lunGuardFolder, lunGuardPort, serialOf } from '../machine/files.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { projectRoot, render } from '../render.js'
import { apply, eventually, machineCheck, shared } from './checks.js'
import { whyNoWrites } from './initiator.js'
import { describePod, isReady, type Pod, pods } from './pods.js'
import { shortName } from './target.js'

const phase = 'database'

/** Under their upstream names: where a registry is reached, the upstream images serve as well. */
const images = { ubuntu: 'docker.io/library/debian:trixie-slim', database: 'docker.io/library/mariadb:11.8' }

type OnLun = Extract<DatabaseVolume, { kind: 'lun' }>

const iscsiVolume = (lab: Lab, volume: OnLun): object => {
  const target = targetNamed(lab, volume.target)
  return {
    targetPortal: portalOf(lab, target),
    iqn: target.iqn,
    lun: volume.lun,
    fsType: 'ext4',
    readOnly: false,
    chapAuthDiscovery: true,
    chapAuthSession: true,
    secretRef: { name: 'chap-secret' },
  }
}

/** What writes a plain file on the LUN, in a container beside the database. */
export const ledgerScript = join(projectRoot, 'templates', 'manifests', 'ledger.pl')

const claimOf = (database: DatabaseSpec): string => `${database.name}-data`

const databaseManifest = (lab: Lab, database: DatabaseSpec): string => {
  const { volume } = database
  const claim = claimOf(database)
  return render('manifests/database.yaml', {
    ...database,
    image: images.database,
    claim: volume.kind === 'claim' ? { name: claim, class: volume.class } : undefined,
    volume:
      volume.kind === 'lun'
        ? { iscsi: iscsiVolume(lab, volume) }
        : { persistentVolumeClaim: { claimName: claim } },
    ledgerScript: readFileSync(ledgerScript, 'utf8'),
  })
}

/** Keys and values of chap-secret, which the kubelet gives to open-iscsi. */
const secretValues = (lab: Lab, { chap, machine }: TargetSpec): Readonly<Record<string, string>> =>
  Object.assign(
    {},
    ...Object.entries({
      'discovery.sendtargets.auth': discoveryChapOf(lab, machine),
      'node.session.auth': chap,
    }).map(([section, { username, password, mutual }]) => ({
      [`${section}.username`]: username,
      [`${section}.password`]: password,
      ...(mutual && {
        [`${section}.username_in`]: mutual.username,
        [`${section}.password_in`]: mutual.password,
      }),
    })),
  ) as Readonly<Record<string, string>>

const secretManifest = (lab: Lab, target: TargetSpec): string =>
  render('manifests/chap-secret.yaml', { values: secretValues(lab, target) })

export const createSecret = (lab: Lab, target: TargetSpec): Step => ({
  id: 'create-chap-secret',
  title: 'Put the CHAP name and password into chap-secret',
  phase,
  needs: ['init-control-plane'],
  apply: (context) => apply(context, secretManifest(lab, target)),
  checks: [
    {
      id: 'chap-secret',
      title: 'chap-secret holds what the lab file says',
      within: 20,
      hint: `lab up ${lab.name}`,
      probe: async ({ kubectl }) => {
        const { type, data } = await kubectl.get<{ type: string; data: Record<string, string> }>(
          'secret',
          'chap-secret',
        )
        const wanted = secretValues(lab, target)
        const keys = [...Object.keys(wanted), ...Object.keys(data)]
        const same = keys.every(
          (key) => Buffer.from(data[key] ?? '', 'base64').toString('utf8') === wanted[key],
        )
        return {
          ok: same && type === 'kubernetes.io/iscsi-chap',
          saw: `${type}, ${same ? 'as wanted' : 'other values'}`,
        }
      },
    },
  ],
})

const deploymentExists = async ({ kubectl }: Context, database: DatabaseSpec): Promise<boolean> =>
  (await kubectl.run([
    'get',
    'deployment',
    `${database.name}-server`,
    '--ignore-not-found',
    '-o',
    'name',
  ])) !== ''

/** Whether a kubelet's programs are those that ask first, and whether the node answers others. */
const guardCheck = (lab: Lab, { name, address }: MachineSpec): Check =>
  machineCheck({
    id: `${name}-lun-guard`,
    title: `${name} asks the other nodes before it uses a LUN, and answers them`,
    machine: name,
    within: 30,
    hint: `lab up ${lab.name}`,
    command: shell`tr '\0' '\n' < /proc/"$(systemctl show --property=MainPID --value kubelet)"/environ | grep ^PATH=; timeout 10 bash -c ${`cat < /dev/tcp/${address}/${String(lunGuardPort)}`} | tail -n 1`,
    judge: (output) => {
      const [path = '', last = ''] = output.split('\n')
      const asks = path.startsWith(`PATH=${lunGuardFolder}:`)
      return {
        ok: asks && last === 'done',
        saw: `${asks ? 'asks' : `its kubelet does not ask: ${path}`}, ${last === 'done' ? 'answers' : 'does not answer'}`,
      }
    },
  })

/** Before any pod uses a LUN. */
export const guardLuns = (lab: Lab): Step => {
  const workers = machinesWith(lab, 'worker').filter(({ iqn }) => iqn !== undefined)
  const [first] = workers
  if (!first) throw new Error(`${lab.name} has no worker with LUNs`)
  return {
    id: 'guard-luns',
    title: 'Let one node at a time use a LUN',
    phase: 'kubernetes',
    needs: ['init-control-plane', ...workers.map(({ name }) => `join-${name}`)],
    apply: async (context) => {
      await apply(context, render('manifests/lun-guard.yaml', {}))
      await Promise.all(
        workers.map(async ({ name }) =>
          context
            .machine(name)
            .run(
              shell`systemctl daemon-reload; systemctl start lab-lun-guard.socket; tr '\0' '\n' < /proc/"$(systemctl show --property=MainPID --value kubelet)"/environ | grep -q ${`^PATH=${lunGuardFolder}:`} || systemctl restart kubelet`,
              { signal: context.signal, timeout: 60 },
            ),
        ),
      )
    },
    checks: [
      {
        id: 'nodes-visible',
        title: 'a node may ask whether another one is well',
        within: 20,
        hint: `lab up ${lab.name}`,
        probe: async ({ kubectl }) => {
          const said = await kubectl
            .run([
              'auth',
              'can-i',
              'get',
              'nodes',
              `--as=system:node:${first.name}`,
              '--as-group=system:nodes',
            ])
            .catch(() => 'no')
          return { ok: said.trim() === 'yes', saw: said.trim() }
        },
      },
      ...workers.map((worker) => guardCheck(lab, worker)),
    ],
  }
}

export const proveVolume = (lab: Lab, database: DatabaseSpec, volume: OnLun): Step => ({
  id: 'prove-volume',
  title: 'See a pod write to the LUN and read it back',
  phase,
  needs: [
    'create-chap-secret',
    'guard-luns',
    `serve-${shortName(lab, targetNamed(lab, volume.target))}`,
    ...machinesWith(lab, 'worker').flatMap(({ name }) => [`prepare-initiator-${name}`]),
    // One worker is enough to begin.
    `ready-${machinesWith(lab, 'worker')[0]?.name ?? ''}`,
  ],
  apply: async (context) => {
    // A LUN that a database uses is not touched: two pods on one disk is what must never happen.
    if (await deploymentExists(context, database)) return
    await context.kubectl.run(['delete', 'pod', 'ubuntu-initiator', '--ignore-not-found', '--grace-period=1'])
    await apply(
      context,
      render('manifests/ubuntu-initiator.yaml', { image: images.ubuntu, volume: iscsiVolume(lab, volume) }),
    )
  },
  checks: [
    {
      id: 'volume-used',
      title: 'a pod has used the LUN through the CHAP login, as ext4',
      within: 120,
      hint: `lab kubectl ${lab.name} -- describe pod ubuntu-initiator`,
      probe: async (context) => {
        const pod = (await pods(context)).find(({ metadata }) => metadata.name === 'ubuntu-initiator')
        if (pod?.status.phase === 'Succeeded') {
          const said = (await context.kubectl.run(['logs', 'ubuntu-initiator'])).trim()
          return {
            ok: said.startsWith('ext') && said.endsWith('file read back'),
            saw: said || 'it said nothing',
          }
        }
        if (await deploymentExists(context, database))
          return { ok: true, saw: 'the database has it: see its own checks' }
        return {
          ok: false,
          saw: pod ? describePod(pod) : 'no such pod',
          final: pod?.status.phase === 'Failed',
        }
      },
    },
  ],
})

const serverPods = async (context: Context, database: DatabaseSpec): Promise<readonly Pod[]> =>
  (await pods(context)).filter(({ metadata }) => metadata.labels?.['app'] === `${database.name}-server`)

/** What a worker has of the database's LUN, by whatever portal and session. */
interface LunUse {
  /** Its disks there, and whether each answers. */
  readonly disks: readonly { readonly name: string; readonly state: string; readonly alone: boolean }[]
  /** Where it is mounted, each place once. */
  readonly mounts: readonly { readonly at: string; readonly options: readonly string[] }[]
}

/** The kernel's name for a disk of LIO, from the first 25 digits of its serial number. */
const wwidOf = (target: TargetSpec, lun: number): string => `naa.6001405${serialOf(target, lun).slice(0, 25)}`

const readUse = (output: string, wwid: string): LunUse => {
  const lines = output.split('\n').map((line) => line.split(' '))
  const all = lines.flatMap(([kind, name = '', session = '', state = '', is = '']) =>
    kind === 'disk' ? [{ name, session, state, is }] : [],
  )
  const ours = all.filter(({ is }) => is === wwid)
  return {
    disks: ours.map(({ name, state, session }) => ({
      name,
      state,
      alone: all.every((other) => other.is === wwid || other.session !== session),
    })),
    mounts: lines.flatMap(([kind, name = '', at = '', options = '']) =>
      kind === 'mount' && ours.some((disk) => disk.name === name)
        ? [{ at, options: options.split(',') }]
        : [],
    ),
  }
}

/** By worker; one that does not answer is left out. */
const lunUses = shared(async (context): Promise<ReadonlyMap<string, LunUse>> => {
  const { lab } = context
  const volume = lab.database?.volume
  if (volume?.kind !== 'lun') return new Map()
  const wwid = wwidOf(targetNamed(lab, volume.target), volume.lun)
  const found = await Promise.all(
    machinesWith(lab, 'worker').map(async ({ name }): Promise<readonly (readonly [string, LunUse])[]> => {
      try {
        const output = await context
          .machine(name)
          .run(
            shell`cd /sys/block; for disk in sd*; do path=$(readlink -f "$disk"); case $path in */session*) ;; *) continue ;; esac; echo "disk $disk $(echo "$path" | sed 's|.*/session\([0-9]*\)/.*|\1|') $(cat "$disk/device/state") $(cat "$disk/device/wwid")"; awk -v disk="$disk" '$1 == "/dev/" disk { print "mount", disk, $2, $4 }' /proc/mounts; done`,
            { signal: context.signal, timeout: 20 },
          )
        return [[name, readUse(output, wwid)]]
      } catch {
        return []
      }
    }),
  )
  return new Map(found.flat())
})

const nodeOfDatabase = async (context: Context, database: DatabaseSpec): Promise<string | undefined> =>
  (await serverPods(context, database)).find(isReady)?.spec.nodeName

const mountedOnce = (lab: Lab, database: DatabaseSpec): Check => ({
  id: 'volume-mounted-once',
  title: 'the LUN is mounted by the node that runs the database, and by no other',
  within: 60,
  hint: `lab exec ${lab.name} ${machinesWith(lab, 'worker')[0]?.name ?? ''} -- iscsiadm -m session`,
  probe: async (context) => {
    const uses = await lunUses(context)
    const silent = machinesWith(lab, 'worker').filter(({ name }) => !uses.has(name))
    const mounting = [...uses].filter(([, { mounts }]) => mounts.length > 0).map(([name]) => name)
    const runs = await nodeOfDatabase(context, database)
    return {
      ok: silent.length === 0 && mounting.length === 1 && mounting[0] === runs,
      saw: [
        `mounted on ${mounting.join(', ') || 'no node'}, database on ${runs ?? 'no node'}`,
        ...silent.map(({ name }) => `${name} does not answer`),
      ].join('; '),
    }
  },
})

/** Why the database cannot write where its LUN is mounted; nothing: it can. */
const deadMounts = (uses: ReadonlyMap<string, LunUse>): readonly { node: string; saw: string }[] =>
  [...uses].flatMap(([node, { disks, mounts }]) => {
    if (mounts.length === 0) return []
    const why = mounts.map((mount) => whyNoWrites(mount.options)).find((each) => each !== undefined)
    if (why !== undefined) return { node, saw: `the database's file system on ${node} is ${why}` }
    const bad = disks.filter(({ state }) => state !== 'running')
    return bad.map(({ name, state }) => ({
      node,
      saw: `the disk does not answer on ${node}: ${name} is ${state}`,
    }))
  })

const takesWrites = (lab: Lab, database: DatabaseSpec): Check => ({
  id: 'volume-writable',
  title: "the database's file system takes writes",
  within: 180,
  hint: `lab up ${lab.name}`,
  probe: async (context) => {
    const uses = await lunUses(context)
    const dead = deadMounts(uses)
    const mounts = [...uses].flatMap(([node, use]) => (use.mounts.length > 0 ? [node] : []))
    if (dead.length === 0 && mounts.length > 0) return { ok: true, saw: `mounted on ${mounts.join(', ')}` }
    const pods = dead.length === 0 ? await serverPods(context, database) : []
    const nowhere = `mounted on no node, and ${pods.length === 0 ? `there is no pod of ${database.name}-server to mount it for` : pods.map(describePod).join('; ')}`
    return { ok: false, saw: dead.map(({ saw }) => saw).join('; ') || nowhere }
  },
})

/**
 * A file system that was shut down stays so for as long as it is mounted, and a container that is started again gets
 * the same mount. So the pod must go: its node unmounts and logs out, and the next pod logs in and mounts anew.
 */
const replacePods = async (context: Context, database: DatabaseSpec): Promise<void> => {
  const dead = deadMounts(await lunUses(context)).map(({ node }) => node)
  const names = (await serverPods(context, database))
    .filter(({ spec }) => dead.includes(spec.nodeName ?? ''))
    .map(({ metadata }) => metadata.name)
  if (names.length > 0)
    await context.kubectl.run(['delete', 'pod', ...names, '--ignore-not-found', '--wait=false'])
}

/** Other LUNs of the target are other people's: a session that serves one of them may have this one as well. */
const sessionsCheck = (lab: Lab, database: DatabaseSpec, { lun }: OnLun, name: string): Check => ({
  id: `${name}-session`,
  title: `${name} has the database's LUN exactly when it runs the database`,
  machine: name,
  within: 60,
  hint: `lab exec ${lab.name} ${name} -- iscsiadm -m session -P 3`,
  probe: async (context) => {
    const use = (await lunUses(context)).get(name)
    if (!use) return { ok: false, saw: `${name} does not answer` }
    const runs = (await serverPods(context, database)).some(
      (pod) => isReady(pod) && pod.spec.nodeName === name,
    )
    const left = use.disks.filter(({ alone }) => alone || use.mounts.length > 0)
    return {
      ok: runs ? use.disks.length === 1 : left.length === 0,
      saw: `LUN ${String(lun)} ${use.disks.map((disk) => `is ${disk.name}`).join(', ') || 'is not there'}, database ${runs ? 'here' : 'elsewhere'}`,
    }
  },
})

interface Occurrence {
  readonly reason: string
  readonly message: string
}

/** Why a pod's volume is not there yet, in the words of its kubelet; nothing: it does not wait for one. */
const mountTrouble = async ({ kubectl }: Context, { metadata, status }: Pod): Promise<string | undefined> => {
  if (status.phase !== 'Pending') return undefined
  const { items } = await kubectl.get<{ items: Occurrence[] }>(
    'events',
    `--field-selector=involvedObject.name=${metadata.name},type=Warning`,
  )
  const { message } = items.findLast(({ reason }) => reason.startsWith('FailedMount')) ?? {}
  // What the program said last is at the end.
  return message?.trim().split('\n').slice(-2).join(' ').slice(-400)
}

interface Claim {
  readonly spec: { readonly accessModes: readonly string[]; readonly volumeName?: string }
  readonly status: { readonly phase: string }
}

interface Volume {
  readonly spec: { readonly hostPath?: { readonly path: string }; readonly local?: { readonly path: string } }
}

/** Asked where the data is, not where it is mounted: that every node has it is the claim's promise. */
const onServer = (lab: Lab, database: DatabaseSpec, server: MachineSpec): Check => ({
  id: 'volume-on-server',
  title: `the database's files are on ${server.name}, in a volume that every node may mount`,
  machine: server.name,
  within: 60,
  hint: `lab kubectl ${lab.name} -- describe persistentvolumeclaim ${claimOf(database)}`,
  probe: async (context) => {
    const claim = await context.kubectl.get<Claim>('persistentvolumeclaim', claimOf(database))
    const name = claim.spec.volumeName
    if (claim.status.phase !== 'Bound' || name === undefined) return { ok: false, saw: claim.status.phase }
    const { spec } = await context.kubectl.get<Volume>('persistentvolume', name)
    const folder = spec.hostPath?.path ?? spec.local?.path ?? ''
    const found = await context
      .machine(server.name)
      .try(shell`stat --format=%s ${`${folder}/mysql-data/ibdata1`}`)
    return {
      ok:
        claim.spec.accessModes.includes('ReadWriteMany') &&
        found.exitCode === 0 &&
        Number(found.stdout.trim()) > 0,
      saw: `${claim.spec.accessModes.join(', ')}; ${folder}: ${found.exitCode === 0 ? `ibdata1 of ${found.stdout.trim()} bytes` : 'no ibdata1'}`,
    }
  },
})

const volumeChecks = (lab: Lab, database: DatabaseSpec): readonly Check[] => {
  const { volume } = database
  if (volume.kind === 'claim') {
    const server = nfsServerOf(lab)
    return server ? [onServer(lab, database, server)] : []
  }
  return [
    mountedOnce(lab, database),
    ...machinesWith(lab, 'worker').map(({ name }) => sessionsCheck(lab, database, volume, name)),
  ]
}

const atLeastOne = (checks: readonly Check[]): Step['checks'] => checks as unknown as Step['checks']

export const deployDatabase = (lab: Lab, database: DatabaseSpec): Step => ({
  id: 'deploy-database',
  title: `Deploy ${database.name} with one replica on ${database.volume.kind === 'lun' ? 'the LUN' : `a volume of class ${database.volume.class}`}`,
  phase,
  needs:
    database.volume.kind === 'lun'
      ? ['prove-volume']
      : ['provide-storage', ...machinesWith(lab, 'worker').map(({ name }) => `ready-${name}`)],
  apply: async (context) => {
    if (database.volume.kind === 'lun') await replacePods(context, database)
    await apply(context, databaseManifest(lab, database))
  },
  checks: atLeastOne([
    // First, since what follows fails with it, and would not say why.
    ...(database.volume.kind === 'lun' ? [takesWrites(lab, database)] : []),
    {
      id: 'database-runs',
      title: `${database.name} is ready, one pod`,
      within: 180,
      hint: `lab kubectl ${lab.name} -- describe deployments,pods -l app=${database.name}-server`,
      probe: async (context) => {
        const found = await serverPods(context, database)
        // One that ends may take its time; a second one that waits for the disk is one too many.
        const wanted = found.filter(({ metadata }) => metadata.deletionTimestamp === undefined)
        const said = await Promise.all(
          found.map(async (pod) =>
            [`${pod.metadata.name}: ${describePod(pod)}`, await mountTrouble(context, pod)]
              .filter(Boolean)
              .join(': '),
          ),
        )
        return {
          ok: wanted.length === 1 && wanted.every(isReady),
          saw: said.join('; ') || 'no such pod',
        }
      },
    },
    {
      id: 'database-service',
      title: `Service ${database.name} leads to it, on every node's ports ${String(database.nodePort)} and ${String(database.ledgerPort)}`,
      within: 60,
      hint: `lab kubectl ${lab.name} -- describe service ${database.name}`,
      probe: async ({ kubectl }) => {
        const [service, slices] = await Promise.all([
          kubectl.get<{ spec: { type: string; clusterIP: string; ports: { nodePort?: number }[] } }>(
            'service',
            database.name,
          ),
          kubectl.get<{ items: { endpoints?: { conditions: { ready?: boolean } }[] }[] }>(
            'endpointslices',
            '-l',
            `kubernetes.io/service-name=${database.name}`,
          ),
        ])
        const nodePorts = service.spec.ports.map(({ nodePort }) => nodePort)
        const ready = slices.items
          .flatMap(({ endpoints }) => endpoints ?? [])
          .filter(({ conditions }) => conditions.ready)
        return {
          ok:
            service.spec.type === 'NodePort' &&
            [database.nodePort, database.ledgerPort].every((port) => nodePorts.includes(port)) &&
            ready.length === 1,
          saw: `${service.spec.type} ${service.spec.clusterIP}:3306, node ports ${nodePorts.join(', ')}, ${String(ready.length)} endpoint`,
        }
      },
    },
    ...volumeChecks(lab, database),
  ]),
})

/** A connection as a client outside the cluster makes it: to a node's address and the node port. */
const connectTo = async (context: Context, address: string, database: DatabaseSpec): Promise<Connection> => {
  const socket = await context.provider.dial(context.lab, address, database.nodePort)
  return createConnection({
    stream: socket,
    user: database.user,
    password: database.password,
    database: database.database,
    connectTimeout: 10_000 * (context.provider.patience ?? 1),
  })
}

const rowText = (lab: Lab): string => `written from outside the cluster by lab ${lab.name}`

const withConnection = async <T>(
  context: Context,
  address: string,
  database: DatabaseSpec,
  use: (connection: Connection) => Promise<T>,
): Promise<T> => {
  const connection = await connectTo(context, address, database)
  try {
    return await use(connection)
  } finally {
    connection.destroy()
  }
}

const readRow = (context: Context, address: string, database: DatabaseSpec): Promise<Verdict> =>
  withConnection(context, address, database, async (connection) => {
    const [rows] = await connection.query<RowDataPacket[]>('SELECT text, at FROM lab_row WHERE id = 1')
    const row = rows[0] as { text: string; at: Date } | undefined
    return {
      ok: row?.text === rowText(context.lab),
      saw: row ? `row 1: ${row.text}, ${new Date(row.at).toISOString()}` : 'no row',
    }
  })

/** Every node answers on the node port, whichever runs the pod. */
const rowThrough = (lab: Lab, database: DatabaseSpec, name: string, address: string): Check => ({
  id: `row-through-${name}`,
  title: `the row reads back through ${address}:${String(database.nodePort)} (${name})`,
  machine: name,
  within: 60,
  hint: `lab up ${lab.name}`,
  probe: (context) => readRow(context, address, database),
})

export const writeRow = (lab: Lab, database: DatabaseSpec): Step => ({
  id: 'write-row',
  title: `Write a row through node port ${String(database.nodePort)} from this host`,
  phase,
  needs: ['deploy-database'],
  apply: async (context) => {
    const node = machinesWith(lab, 'worker')[0]
    if (!node) throw new Error('a database without a worker')
    // Node ports lead to a pod a moment after it is ready: kube-proxy has to hear of it.
    await eventually(context, 60, () =>
      withConnection(context, node.address, database, async (connection) => {
        await connection.query(
          'CREATE TABLE IF NOT EXISTS lab_row (id INT PRIMARY KEY, text VARCHAR(200), at DATETIME)',
        )
        await connection.query('REPLACE INTO lab_row VALUES (1, ?, UTC_TIMESTAMP())', [rowText(lab)])
      }),
    )
  },
  checks: atLeastOne(nodesOf(lab).map(({ name, address }) => rowThrough(lab, database, name, address))),
})

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

const clientPods = async (context: Context, database: DatabaseSpec): Promise<readonly Pod[]> =>
  (await pods(context)).filter(({ metadata }) => metadata.labels?.['app'] === `${database.name}-client`)

interface InsideView {
  /** What the Service's name resolves to. */
  readonly address: string
  /** Pods that were tried, and the names of those that did not answer. */
  readonly doors: readonly Pod[]
  readonly unreached: readonly string[]
  readonly row: string
}

/** Ports on which pods listen that every lab has: CoreDNS's readiness, and the database. */
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

/** One visit to the client pod of a worker answers all that is asked there: each costs half a second. */
const lookFromInside = async (
  context: Context,
  database: DatabaseSpec,
  worker: string,
): Promise<InsideView> => {
  const pod = (await clientPods(context, database)).find((candidate) => candidate.spec.nodeName === worker)
  if (!pod) throw new Error(`no client pod on ${worker}`)
  const doors = await doorsOf(context, database)
  const name = `${database.name}.default.svc.${context.lab.kubernetes?.dnsDomain ?? ''}`
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
      {
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
      },
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

/** The id of the check that sees who is logged in to the database's target. */
export const loggedInCheck = 'one-session-only'

export const targetSees = (lab: Lab, database: DatabaseSpec, volume: OnLun): Step => {
  const target = targetNamed(lab, volume.target)
  // A target with other LUNs has other users, too.
  const alone = target.luns.length === 1
  const acls = `/sys/kernel/config/target/iscsi/${target.iqn}/tpgt_1/acls`
  return {
    id: 'prove-one-session',
    title: 'See at the target who is logged in',
    phase,
    machine: target.machine,
    needs: ['deploy-database'],
    checks: [
      {
        id: loggedInCheck,
        title: `at ${target.iqn} the node of the database is logged in${alone ? ', and nobody else' : ''}`,
        machine: target.machine,
        within: 60,
        hint: `lab exec ${lab.name} ${target.machine} -- grep -r LOGGED_IN ${acls}`,
        probe: async (context) => {
          const output = await context
            .machine(target.machine)
            .run(shell`for acl in ${acls}/*/; do ! grep -q LOGGED_IN "$acl"info || basename "$acl"; done`, {
              signal: context.signal,
              timeout: 30,
            })
          const users = output.split('\n').filter((line) => line !== '')
          const runs = await nodeOfDatabase(context, database)
          const server = lab.machines.find(({ name }) => name === runs)?.iqn
          const there = server !== undefined && users.includes(server)
          return {
            ok: there && (!alone || users.length === 1),
            saw:
              [...users].sort((a, b) => Number(b === server) - Number(a === server)).join(', ') || 'nobody',
          }
        },
      },
    ],
  }
}

/** Every manifest of a lab's workload, for people to read. */
export const manifestsOf = (lab: Lab): readonly { readonly name: string; readonly text: string }[] => {
  const { database } = lab
  if (!database) return []
  const { volume } = database
  return [
    ...(volume.kind === 'lun'
      ? [
          {
            name: 'chap-secret',
            text: secretManifest(lab, targetNamed(lab, volume.target)),
          },
          {
            name: 'ubuntu-initiator',
            text: render('manifests/ubuntu-initiator.yaml', {
              image: images.ubuntu,
              volume: iscsiVolume(lab, volume),
            }),
          },
        ]
      : []),
    {
      name: 'database',
      text: databaseManifest(lab, database),
    },
    { name: 'client', text: render('manifests/client.yaml', { ...database, image: images.database }) },
  ]
}
