import { LabError } from '../error.js'
import { lacks } from '../lab/draft.js'
import { where } from '../lab/fault-machines.js'
import type { Context } from '../context.js'
import { faultOfMachine } from './fault.js'
import { reunion, soon } from './sign.js'

interface PodList {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly uid: string; readonly deletionTimestamp?: string }
    readonly spec: { readonly nodeName?: string }
    readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] }
  }[]
}

/** The database's pods that stay. */
const podsOf = async ({ kubectl, lab }: Context): Promise<PodList['items']> => {
  const found = await kubectl.get<PodList>('pods', '--selector', `app=${lab.database?.name ?? ''}-server`)
  return found.items.filter(({ metadata }) => metadata.deletionTimestamp === undefined)
}

const podsOn = async (context: Context, on: readonly string[]): Promise<PodList['items']> =>
  (await podsOf(context)).filter(({ spec }) => on.includes(spec.nodeName ?? ''))

const fields = { machine: where('Where the database runs') }

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'delete-pod': typeof fields
  }
}

export const deletePod = faultOfMachine({
  name: 'delete-pod',
  description:
    "Deletes the database's pod on a node; its Deployment makes another one, on this node or elsewhere. There is nothing to heal.",
  fields,
  byKubectl: true,
  sensible: [['worker'], 'the database runs on a worker'],
  undos: [],
  *rules(file, _fault, path) {
    if (lacks(file, 'database'))
      yield { path: [...path, 'machine'], message: 'the lab has no database whose pod could be deleted' }
  },
  aim: ({ on, names }) => {
    let deleted: readonly string[] = []
    return {
      detail: `the database's pod on ${names} deleted`,
      undo: [],
      possible: async (context) => {
        if ((await podsOn(context, on)).length === 0)
          throw new LabError('fault-impossible', `no pod of the database runs on ${names}`, {
            hint: 'machine: database',
          })
      },
      act: async (context) => {
        const found = await podsOn(context, on)
        deleted = found.map(({ metadata }) => metadata.uid)
        await context.kubectl.run([
          'delete',
          'pod',
          ...found.map(({ metadata }) => metadata.name),
          '--wait=false',
        ])
      },
      acting: {
        title: `the database's pod on ${names} is told to end, or is gone`,
        within: soon,
        probe: async (context) => {
          const left = (await podsOf(context)).filter(({ metadata }) => deleted.includes(metadata.uid))
          return {
            ok: deleted.length > 0 && left.length === 0,
            saw: left.map(({ metadata }) => `${metadata.name} stays`).join(', ') || 'it is',
          }
        },
      },
      gone: {
        title: 'another pod of the database is ready',
        within: reunion,
        probe: async (context) => {
          const ready = (await podsOf(context)).filter(
            ({ metadata, status }) =>
              !deleted.includes(metadata.uid) &&
              status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
          )
          return {
            ok: ready.length > 0,
            saw:
              ready.map(({ metadata, spec }) => `${metadata.name} on ${spec.nodeName ?? ''}`).join(', ') ||
              'none',
          }
        },
      },
    }
  },
})
