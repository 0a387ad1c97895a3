/**
 * Before anything is read back, the server that took the writes ends and its disk is unmounted: what is read then was
 * on the disk, and in nobody's memory. Meanwhile the file system is checked where the disk is, at its target.
 */
import { z } from 'zod'
import { messageOf } from '../error.js'
import { type JournalEntry, noteUndo, strike } from '../journal.js'
import { type DatabaseSpec, machinesWith, targetNamed } from '../lab/lab.js'
import { shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import type { Verdict } from '../plan/step.js'
import { dataFolderOn } from '../fault/database-disk.js'
import { ofAll, see, type Sign } from '../fault/sign.js'
import { undoAct } from '../fault/undo-act.js'

/** How what is read back was read. */
export interface DiskProof {
  /** Whether nothing of it can have come from the memory of the server that wrote it. */
  readonly ok: boolean
  /** Sentences, with evidence. */
  readonly saw: string
  /** What the check of the file system said; absent: the volume has none of its own, or nobody could ask. */
  readonly fileSystem?: Verdict | undefined
  /** Seconds that it added to the run. */
  readonly seconds: number
}

/** Seconds for the server to end, and to start again, and for the disk to be unmounted. */
const longest = 120
/** Seconds for the file system to be checked. */
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

/** A workload of the namespace default had so many pods; the machine that the journal names is that of the API server. */
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
 * Reads the disk itself: what the target's own cache may hold of it, from before the initiators wrote, is dropped.
 * `-n` changes nothing, `-f` looks at all of it, also where the file system calls itself clean.
 */
const checkFileSystem = async (context: Context, iqn: string, lun: number): Promise<Verdict> => {
  const { machine } = targetNamed(context.lab, iqn)
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
 * Ends the server, sees its disk unmounted everywhere, checks the file system, and starts another one, whatever
 * happens. What could not be seen is said, and nothing is thrown.
 * @param by the command that the journal names: whoever kills it meanwhile leaves a lab without its database
 */
export const putOnDisk = async (context: Context, database: DatabaseSpec, by: string): Promise<DiskProof> => {
  const begun = performance.now()
  const seconds = (): number => Math.round(performance.now() - begun) / 1000
  const { volume } = database
  const said: string[] = []
  let fileSystem: Verdict | undefined
  let ok = true
  /** @returns whether it is so */
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
    // What is still mounted would be found dirty.
    if (await must(isUnmounted)) fileSystem = await checkFileSystem(context, volume.target, volume.lun)
  })
  await trying(async () => {
    // Asked until it is heard: a lab without its database is not as it was.
    const heard = await see(
      {
        title: 'the server is wanted again',
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
