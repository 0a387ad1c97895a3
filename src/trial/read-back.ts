/**
 * Before anything is read back, the server that took the writes ends and its disk is unmounted, so that the data
 * comes from the disk and not from memory. Meanwhile the file system is checked at the target.
 */
import { z } from 'zod'
import { messageOf } from '../error.js'
import { type JournalEntry, noteUndo, strike } from '../journal.js'
import { type DatabaseSpec, isPaired, machinesWith, targetNamed } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { dataFolderOn } from '../fault/database-disk.js'
import { ofAll, see, type Sign } from '../fault/sign.js'
import { undoAct } from '../fault/undo-act.js'
import { servingMachine } from '../steps/pair-members.js'

/** How the data was read back. */
export interface DiskProof {
  /** Whether none of the data can come from the memory of the server that wrote it. */
  readonly ok: boolean
  /** Sentences, with evidence. */
  readonly saw: string
  /**
   * The result of the file system check; absent: the volume has no file system of its own, or it could not be
   * checked.
   */
  readonly fileSystem?: Verdict | undefined
  /** Seconds that this added to the run. */
  readonly seconds: number
}

/** Seconds for the server to end and to start again, and for the disk to be unmounted. */
const longest = 120
/** Seconds for the check of the file system. */
const checkTime = 120

interface Pods {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly deletionTimestamp?: string }
    readonly spec: { readonly nodeName?: string }
    readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] }
  }[]
}

const podsOf = async (context: Context, database: DatabaseSpec): Promise<Pods['items']> =>
  (await context.kubectl.get<Pods>('pods', '--selector', `app=${database.name}-server`)).items

/**
 * Restores the number of pods of a workload in the namespace default. The machine in the journal is that of the API
 * server.
 */
export const scalingBack = undoAct(
  'scale',
  { workload: z.string(), replicas: z.int().nonnegative() },
  async ({ kubectl }, { workload, replicas }) => {
    await kubectl.run(['scale', workload, `--replicas=${String(replicas)}`])
  },
)

const workloadOf = (database: DatabaseSpec): string => `deployment/${database.name}-server`

const scale = async (context: Context, database: DatabaseSpec, replicas: number): Promise<void> => {
  await context.kubectl.run(['scale', workloadOf(database), `--replicas=${String(replicas)}`])
}

const hasEnded = (database: DatabaseSpec): Sign => ({
  title: 'the server has ended',
  within: longest,
  probe: async (context) => {
    const left = await podsOf(context, database)
    return { ok: left.length === 0, saw: left.map(({ metadata }) => metadata.name).join(', ') || 'no pod' }
  },
})

const isUnmounted: Sign = {
  title: 'no node has mounted its disk',
  within: longest,
  probe: (context) =>
    ofAll(machinesWith(context.lab, 'worker'), async ({ name }) => {
      const folder = await dataFolderOn(context, name)
      return { ok: folder === '', saw: `${name}: ${folder === '' ? 'not mounted' : `mounted at ${folder}`}` }
    }),
}

const isServing = (database: DatabaseSpec): Sign => ({
  title: 'another server is ready',
  within: longest,
  probe: async (context) => {
    const ready = (await podsOf(context, database)).filter(
      ({ metadata, status }) =>
        metadata.deletionTimestamp === undefined &&
        status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
    )
    return {
      ok: ready.length === 1,
      saw:
        ready.map(({ metadata, spec }) => `${metadata.name} on ${spec.nodeName ?? 'no node'}`).join(', ') ||
        'none',
    }
  },
})

/**
 * Reads the disk itself: it first drops the target's own cache, which may predate the initiators' writes. `-n`
 * changes nothing, and `-f` checks everything even if the file system is marked clean.
 */
const checkFileSystem = async (context: Context, iqn: string, lun: number): Promise<Verdict> => {
  const target = targetNamed(context.lab, iqn)
  // Of a pair, only the machine that serves has the disk at this moment.
  const machine = isPaired(target) ? await servingMachine(context, target) : target.machine
  const { exitCode, stdout, stderr } = await context
    .machine(machine)
    .try(
      shell`device=$(cat /sys/kernel/config/target/iscsi/${iqn}/tpgt_1/lun/lun_${lun}/*/udev_path) && blockdev --flushbufs "$device" && LC_ALL=C dumpe2fs -h "$device" 2>/dev/null | grep '^Filesystem state:' && LC_ALL=C e2fsck -f -n "$device" 2>&1`,
      { timeout: checkTime },
    )
  const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '')
  const clean = /^Filesystem state:\s+clean$/m.test(stdout)
  return {
    ok: exitCode === 0 && clean,
    saw: [lines[0]?.replace(/\s+/g, ' ') ?? 'no answer', ...lines.slice(1).slice(-3)].join('; '),
  }
}

/**
 * Ends the server, waits until its disk is unmounted everywhere, checks the file system, and starts another server in
 * any case. What could not be observed is reported; nothing is thrown.
 * @param by the command for the journal: if it is killed meanwhile, the lab is without its database
 */
export const putOnDisk = async (context: Context, database: DatabaseSpec, by: string): Promise<DiskProof> => {
  const begun = performance.now()
  const seconds = (): number => Math.round(performance.now() - begun) / 1000
  const { volume } = database
  const said: string[] = []
  let fileSystem: Verdict | undefined
  let ok = true
  /** @returns whether the sign holds */
  const must = async (sign: Sign): Promise<boolean> => {
    const seen = await see(sign, context)
    said.push(`${sign.title}: ${seen.ok ? '' : 'no: '}${seen.saw}`)
    ok &&= seen.ok
    return seen.ok
  }
  const trying = async (act: () => Promise<unknown>): Promise<void> => {
    try {
      await act()
    } catch (error) {
      ok = false
      said.push(messageOf(error))
    }
  }
  let noted: readonly JournalEntry[] = []
  await trying(async () => {
    const machine = machinesWith(context.lab, 'control-plane')[0]?.name ?? ''
    const undo = scalingBack.of(machine, { workload: workloadOf(database), replicas: 1 })
    noted = await noteUndo(context.lab, by, 'read-back', [undo], 'run')
    await scale(context, database, 0)
    if (!(await must(hasEnded(database))) || volume.kind !== 'lun') return
    // A mounted file system would be reported as dirty.
    if (await must(isUnmounted)) fileSystem = await checkFileSystem(context, volume.target, volume.lun)
  })
  await trying(async () => {
    // Repeated until it is accepted: without its database, the lab is not as it was.
    const heard = await see(
      {
        title: 'the server is started again',
        within: longest,
        probe: async () => {
          await scale(context, database, 1)
          return { ok: true, saw: '' }
        },
      },
      context,
    )
    if (heard.ok) for (const entry of noted) await strike(context.lab, entry)
    await must(isServing(database))
  })
  return { ok, saw: said.join('; '), fileSystem, seconds: seconds() }
}
