import { z } from 'zod'
import { LabError } from '../error.js'
import { machinesWith } from '../lab/lab.js'
import { type Command, shell } from '../machine/sh.js'
import type { Context } from '../context.js'
import { dataFolderOn } from './database-disk.js'
import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { lookTimeout, ofAll, reunion, type Sign, soon } from './sign.js'
import { undoAct, undoTimeout } from './undo-act.js'

/** The file that fills a disk. */
const filler = 'lab-fault-fill'

/** The mount point of the database's LUN on its node, whatever other disks are mounted there. */
const dataFolder = async (context: Context, machine: string): Promise<string> => {
  const found = await dataFolderOn(context, machine)
  if (found === '')
    throw new LabError('no-data-disk', `${machine} has not mounted the database's disk`, {
      hint: `lab verify ${context.lab.name}`,
    })
  return found
}

/** The machine may be off: the file would fill its disk again when it is back. */
const removingFile = undoAct('remove-file', { path: z.string() }, async (context, { machine, path }) => {
  await context.machine(machine).run(shell`rm -f ${path}`, { signal: context.signal, timeout: undoTimeout })
})

/** Prints the free space in bytes, and whether a test write succeeds. */
const fill = (folder: string): Command =>
  shell`df --output=avail -B1 ${folder} | tail -n 1; LC_ALL=C dd if=/dev/zero of=${`${folder}/lab-fault-probe`} bs=4k count=1 conv=fsync 2>&1; rm -f ${`${folder}/lab-fault-probe`}`

const room = async (
  context: Context,
  machine: string,
  folder: string,
): Promise<{ readonly free: number; readonly refused: boolean; readonly saw: string }> => {
  // The write is meant to fail on a full disk, so failure is an answer.
  const output = await context.machine(machine).run(fill(folder), { signal: context.signal, timeout: 30 })
  const [free = '', ...rest] = output.split('\n')
  const answer = rest.join(' ')
  return {
    free: free.trim() === '' ? NaN : Number(free),
    refused: output.includes('No space left on device'),
    saw: `${machine}: ${free.trim()} bytes free in ${folder}; a write: ${answer}`,
  }
}

const isFull = (on: readonly { readonly name: string; readonly folder: string }[]): Sign => ({
  title: `the disk of ${on.map(({ name }) => name).join(', ')} has no free byte, and a write is refused`,
  within: soon,
  probe: (context) =>
    ofAll(on, async ({ name, folder }) => {
      const { free, refused, saw } = await room(context, name, folder)
      return { ok: free === 0 && refused, saw }
    }),
})

/**
 * @param file the name of the file that fills the disk
 * @param data whether it is the database's disk, which may have moved to another node
 */
const hasRoom = (
  on: readonly { readonly name: string; readonly folder: string }[],
  file: string,
  data: boolean,
): Sign => ({
  title: `the disk of ${on.map(({ name }) => name).join(', ')} takes writes again`,
  within: reunion,
  probe: async (context) => {
    const places = data
      ? (
          await Promise.all(
            machinesWith(context.lab, 'worker').map(async ({ name }) => ({
              name,
              folder: await dataFolderOn(context, name),
            })),
          )
        ).filter(({ folder }) => folder !== '')
      : on
    if (places.length === 0) return { ok: false, saw: 'no node has mounted it' }
    return ofAll(places, async ({ name, folder }) => {
      const left = await context
        .machine(name)
        .try(shell`test -e ${`${folder}/${file}`}`, { signal: context.signal, timeout: lookTimeout })
      if (left.exitCode === 0) return { ok: false, saw: `${name}: ${folder}/${file} is still there` }
      const { free, refused, saw } = await room(context, name, folder)
      return { ok: free > 0 && !refused, saw }
    })
  },
})

const fields = {
  machine: where(),
  disk: z
    .enum(['root', 'data'], { error: 'root or data' })
    .default('root')
    .meta({ description: 'Which disk: `root` of the machine, or `data`, the LUN of the database.' }),
  for: lasting,
}

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'disk-full': typeof fields
  }
}

export const diskFull = faultOfMachine({
  name: 'disk-full',
  description: 'Fills a disk to its last block. Healed by removing what fills it.',
  fields,
  *rules(file, { machine, disk }, path) {
    if (disk !== 'data') return
    if (machine !== 'database')
      yield {
        path: [...path, 'disk'],
        message: 'only the machine that runs the database has the data disk; write machine: database',
      }
    else if (file.database?.storage !== undefined)
      yield {
        path: [...path, 'disk'],
        message: 'the data is on the NFS machine and not on a disk of the node; write disk: root',
      }
  },
  undos: [removingFile],
  aim: async ({ context, spec: { disk }, on, names }) => {
    const places = await Promise.all(
      on.map(async (name) => ({
        name,
        folder: disk === 'data' ? await dataFolder(context, name) : '/var/tmp',
      })),
    )
    return {
      detail: `${disk} disk of ${names} filled`,
      undo: places.map(({ name, folder }) => removingFile.of(name, { path: `${folder}/${filler}` })),
      // Blocks are allocated, not written: the disk should be full, not busy.
      act: async (now) => {
        await Promise.all(
          places.map(({ name, folder }) => {
            const file = `${folder}/${filler}`
            return now
              .machine(name)
              .run(
                shell`free=$(df --output=avail -B1 "$(dirname ${file})" | tail -n 1); fallocate -l "$free" ${file}; dd if=/dev/zero of=${file} oflag=append conv=notrunc bs=4k 2>/dev/null; sync -f ${file}; test -s ${file}`,
                { timeout: 120 },
              )
          }),
        )
      },
      acting: isFull(places),
      gone: hasRoom(places, filler, disk === 'data'),
    }
  },
})
