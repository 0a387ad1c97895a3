import { z } from 'zod'
import type { Context } from '../context.js'
import { LabError } from '../error.js'
import { lasting, where } from '../lab/fault-machines.js'
import { type Lab, pairWith } from '../lab/lab.js'
import { copyLayer, layerDevice } from '../machine/pair.js'
import { type Command, shell } from '../machine/sh.js'
import { faultOfMachine, lacksPair } from './fault.js'
import { ofAll, printed, reunion, type Sign, soon } from './sign.js'
import { onRunning, undoAct } from './undo-act.js'

/** Seconds for the command that exchanges the layer below a copy. */
const timeout = 30

interface Layer {
  readonly name: string
  /** The block device that DRBD uses. */
  readonly device: string
}

/** The layers of the device mapper between DRBD and the disks of a machine. */
const layersOn = (lab: Lab, machine: string): readonly Layer[] =>
  (pairWith(lab, machine)?.luns ?? []).map((_, number) => ({
    name: copyLayer(number),
    device: layerDevice(number),
  }))

/** Exchanges the table of a layer, once the requests in progress are done. */
const exchange = (layer: string, table: string): Command =>
  shell`dmsetup reload ${layer} --table ${table} && dmsetup suspend --nolockfs ${layer} && dmsetup resume --noudevsync ${layer}`

/** A machine that is off has its disks back at its next boot. */
const givingBack = undoAct(
  'give-disk-back',
  { layer: z.string(), table: z.string() },
  (context, { machine, layer, table }) => onRunning(context, machine, exchange(layer, table)),
)

/** `error` or `linear`, and whether the first block can be read from the disk itself. */
const stateOf = async (
  context: Context,
  machine: string,
  { name, device }: Layer,
): Promise<{ readonly fails: boolean; readonly reads: boolean; readonly saw: string }> => {
  const said = await printed(
    context,
    machine,
    shell`dmsetup table ${name} | cut -d ' ' -f 3; LC_ALL=C dd if=${device} of=/dev/null bs=4k count=1 iflag=direct 2>&1; true`,
  )
  const [kind = '', ...rest] = said.split('\n')
  const read = rest.join(' ')
  return {
    fails: kind === 'error' && read.includes('Input/output error'),
    reads: kind === 'linear' && read.includes('copied'),
    saw: `${machine}: ${name} is ${kind || 'missing'}; a read: ${read || 'no answer'}`,
  }
}

const everyLayer = (
  names: readonly string[],
  title: string,
  within: number,
  wanted: 'fails' | 'reads',
): Sign => ({
  title,
  within,
  probe: (context) =>
    ofAll(
      names.flatMap((machine) => layersOn(context.lab, machine).map((layer) => ({ machine, layer }))),
      async ({ machine, layer }) => {
        const state = await stateOf(context, machine, layer)
        return { ok: state[wanted], saw: state.saw }
      },
    ),
})

const fields = { machine: where(), for: lasting }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'disk-error': typeof fields
  }
}

export const diskError = faultOfMachine({
  name: 'disk-error',
  description:
    'Makes the disks of one of the two machines of a target fail: each read and each write is an error, as on a broken disk. Healed by giving the disks back; `lab` then copies what they have missed.',
  fields,
  sensible: [['target'], 'only a target has a disk that another machine has a copy of'],
  rules: lacksPair,
  undos: [givingBack],
  aim: async ({ context, on, names }) => {
    const { lab, signal } = context
    const layers = (
      await Promise.all(
        on.map(async (machine) =>
          Promise.all(
            layersOn(lab, machine).map(async ({ name: layer }) => ({
              machine,
              layer,
              table: (
                await context.machine(machine).run(shell`dmsetup table ${layer}`, { signal, timeout })
              ).trim(),
            })),
          ),
        ),
      )
    ).flat()
    return {
      detail: `every disk of ${names} fails`,
      undo: layers.map(({ machine, layer, table }) => givingBack.of(machine, { layer, table })),
      possible: () => {
        const failing = layers.find(({ table }) => table.split(' ')[2] !== 'linear')
        if (!failing) return Promise.resolve()
        return Promise.reject(
          new LabError('fault-impossible', `${failing.layer} of ${failing.machine} is ${failing.table}`, {
            hint: `lab heal ${lab.name}`,
          }),
        )
      },
      act: async (now) => {
        await Promise.all(
          layers.map(({ machine, layer, table }) =>
            now.machine(machine).run(exchange(layer, `0 ${table.split(' ')[1] ?? ''} error`), { timeout }),
          ),
        )
      },
      acting: everyLayer(on, `the disks of ${names} return an error for each read`, soon, 'fails'),
      gone: everyLayer(on, `the disks of ${names} can be read`, reunion, 'reads'),
    }
  },
})
