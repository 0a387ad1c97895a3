/**
 * Who uses the database's LUN: which nodes have its disk or mount it, and which initiators are logged in at the
 * target.
 */
import { setTimeout as delay } from 'node:timers/promises'
import {
  type DatabaseSpec,
  isPaired,
  type Lab,
  machinesWith,
  type TargetSpec,
  targetNamed,
} from '../lab/lab.js'
import { serialOf } from '../machine/digest.js'
import { shell } from '../machine/sh.js'
import type { Check, Context, Step } from '../context.js'
import { shared } from './checks.js'
import { nodeOfDatabase, serverPods } from './database-pods.js'
import { whyNoWrites } from './filesystem.js'
import type { OnLun } from './iscsi-volume.js'
import { servingMachine } from './pair-members.js'
import { describePod, isReady } from './pods.js'

const phase = 'database'

/** A worker's use of the database's LUN, through any portal and session. */
interface LunUse {
  /** The worker's disks of the LUN, each with its state, and whether its session has no other LUN. */
  readonly disks: readonly {
    readonly name: string
    readonly session: string
    readonly state: string
    readonly alone: boolean
  }[]
  /** The distinct mount points. */
  readonly mounts: readonly { readonly at: string; readonly options: readonly string[] }[]
}

/** The kernel's name for a disk of LIO: it ends in the first 25 digits of the serial number. */
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
      session,
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

/** Each worker's use of the LUN, by name. Workers that do not answer are left out. */
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

export const mountedOnce = (lab: Lab, database: DatabaseSpec): Check => ({
  id: 'volume-mounted-once',
  title: 'the node that runs the database has mounted the LUN, and no other node has',
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

/** The nodes where the LUN is mounted but accepts no writes, and why. */
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

export const takesWrites = (lab: Lab, database: DatabaseSpec): Check => ({
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
 * Deletes the pods whose file system accepts no writes. A file system that was shut down stays so while it is
 * mounted, and a restarted container gets the same mount. When the pod is deleted, its node unmounts and logs out;
 * the next pod logs in and mounts again.
 */
export const replacePods = async (context: Context, database: DatabaseSpec): Promise<void> => {
  const dead = deadMounts(await lunUses(context)).map(({ node }) => node)
  const names = (await serverPods(context, database))
    .filter(({ spec }) => dead.includes(spec.nodeName ?? ''))
    .map(({ metadata }) => metadata.name)
  if (names.length > 0)
    await context.kubectl.run(['delete', 'pod', ...names, '--ignore-not-found', '--wait=false'])
}

/** Milliseconds for a pod that was one too many to go. */
const surplusGoes = 30_000

/**
 * Logs out the workers that have the database's LUN, have not mounted it, and run no pod of the database. A kubelet
 * logs in before it mounts; where the mount was refused and the pod is deleted, it does not log out again. Waits for
 * pods that are one too many to go.
 */
export const logOutIdle = async (context: Context, database: DatabaseSpec): Promise<void> => {
  const { signal } = context
  const deadline = performance.now() + surplusGoes
  for (;;) {
    const found = await serverPods(context, database)
    const idle = [...(await lunUses(context))].flatMap(([node, { disks, mounts }]) => {
      const alone = disks.filter((disk) => disk.alone)
      return mounts.length === 0 && alone.length > 0 ? [{ node, alone }] : []
    })
    const waiting = idle.filter(({ node }) => found.some(({ spec }) => spec.nodeName === node))
    await Promise.all(
      idle
        .filter((each) => !waiting.includes(each))
        .flatMap(({ node, alone }) =>
          alone.map(({ name, session }) =>
            context
              .machine(node)
              .run(
                // Refused if it was mounted meanwhile, or is being checked.
                shell`perl -MFcntl -e 'sysopen(my $disk, shift, O_RDONLY | O_EXCL) or die "$!\n"' ${`/dev/${name}`} && iscsiadm -m session -r ${session} --logout`,
                { signal, timeout: 30 },
              )
              // The check then reports what is left.
              .catch(() => undefined),
          ),
        ),
    )
    if (waiting.length === 0 || found.length <= 1 || performance.now() > deadline) return
    await delay(500, undefined, { signal }).catch(() => undefined)
    signal.throwIfAborted()
  }
}

/** A session for another LUN of the target may discover this LUN as well, which alone is no use of it. */
export const sessionsCheck = (lab: Lab, database: DatabaseSpec, { lun }: OnLun, name: string): Check => ({
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

/** The id of the check for sessions at the database's target. */
export const loggedInCheck = 'one-session-only'

export const targetSees = (lab: Lab, database: DatabaseSpec, volume: OnLun): Step => {
  const target = targetNamed(lab, volume.target)
  // A target with other LUNs may have other initiators logged in.
  const alone = target.luns.length === 1
  const acls = `/sys/kernel/config/target/iscsi/${target.iqn}/tpgt_1/acls`
  return {
    id: 'prove-one-session',
    title: 'Check at the target who is logged in',
    phase,
    ...(isPaired(target) ? {} : { machine: target.machine }),
    needs: ['deploy-database'],
    checks: [
      {
        id: loggedInCheck,
        title: `at ${target.iqn} the node of the database is logged in${alone ? ', and no other machine' : ''}`,
        ...(isPaired(target) ? {} : { machine: target.machine }),
        within: 60,
        hint: `lab exec ${lab.name} ${target.machine} -- grep -r LOGGED_IN ${acls}`,
        probe: async (context) => {
          const output = await context
            .machine(isPaired(target) ? await servingMachine(context, target) : target.machine)
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
              [...users].sort((a, b) => Number(b === server) - Number(a === server)).join(', ') ||
              'no initiator',
          }
        },
      },
    ],
  }
}
