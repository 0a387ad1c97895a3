/** The database: its Deployment and Service on a LUN or a claim, and the manifests of the lab's workload. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  type DatabaseSpec,
  type Lab,
  type MachineSpec,
  machinesWith,
  nfsServerOf,
  targetNamed,
} from '../lab/lab.js'
import { madeByLab } from '../machine/owned-namespace.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { projectRoot } from '../package.js'
import { render } from '../render.js'
import { apply } from './checks.js'
import { claimOf, images, serverPods } from './database-pods.js'
import { iscsiVolume, secretManifest } from './iscsi-volume.js'
import { logOutIdle, mountedOnce, replacePods, sessionsCheck, takesWrites } from './lun-use.js'
import { describePod, isReady, type Pod } from './pods.js'

const phase = 'database'

/** The script that writes a plain file on the database's volume, in a container next to the database. */
export const ledgerScript = join(projectRoot, 'templates', 'manifests', 'ledger.pl')

/** How the nodes may use the volume: any storage class must do on an existing cluster, and not every one serves many. */
const accessOf = ({ cluster }: Lab): { readonly access: string; readonly why: string } =>
  cluster
    ? { access: 'ReadWriteOnce', why: 'Only one node uses it at a time, which every storage class supports.' }
    : {
        access: 'ReadWriteMany',
        why: 'On a server that every node reaches, so that any remaining worker can mount it.',
      }

const databaseManifest = (lab: Lab, database: DatabaseSpec): string => {
  const { volume } = database
  const claim = claimOf(database)
  return render('manifests/database.yaml', {
    ...database,
    image: images.database,
    claim: volume.kind === 'claim' ? { name: claim, class: volume.class, ...accessOf(lab) } : undefined,
    // What is deleted by its label when the lab ends, in a namespace that others may use as well.
    labels: lab.cluster ? madeByLab : undefined,
    volume:
      volume.kind === 'lun'
        ? { iscsi: iscsiVolume(lab, volume) }
        : { persistentVolumeClaim: { claimName: claim } },
    ledgerScript: readFileSync(ledgerScript, 'utf8'),
  })
}

interface Occurrence {
  readonly reason: string
  readonly message: string
}

/** Why a pod's volume is not mounted yet, according to its kubelet; undefined if the pod is not waiting for one. */
const mountTrouble = async ({ kubectl }: Context, { metadata, status }: Pod): Promise<string | undefined> => {
  if (status.phase !== 'Pending') return undefined
  const { items } = await kubectl.get<{ items: Occurrence[] }>(
    'events',
    `--field-selector=involvedObject.name=${metadata.name},type=Warning`,
  )
  const { message } = items.findLast(({ reason }) => reason.startsWith('FailedMount')) ?? {}
  // The last lines contain the last output of the mount program.
  return message?.trim().split('\n').slice(-2).join(' ').slice(-400)
}

interface Claim {
  readonly spec: { readonly accessModes: readonly string[]; readonly volumeName?: string }
  readonly status: { readonly phase: string }
}

interface Volume {
  readonly spec: { readonly hostPath?: { readonly path: string }; readonly local?: { readonly path: string } }
}

/** Checks where the data is stored, not where it is mounted: the claim promises that every node may mount it. */
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
    if (database.volume.kind === 'lun') await logOutIdle(context, database)
  },
  checks: atLeastOne([
    // First: when it fails, the checks below fail as well without saying why.
    ...(database.volume.kind === 'lun' ? [takesWrites(lab, database)] : []),
    {
      id: 'database-runs',
      title: `${database.name} is ready, one pod`,
      within: 180,
      hint: `lab kubectl ${lab.name} -- describe deployments,pods -l app=${database.name}-server`,
      probe: async (context) => {
        const found = await serverPods(context, database)
        // A pod that is being deleted may take its time; a second pod that waits for the disk is superfluous.
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

/** The manifests of a lab's database, for people to read. */
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
