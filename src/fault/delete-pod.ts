import { LabError } from '../error.js'
import { lacks } from '../lab/draft.js'
import { where } from '../lab/fault-machines.js'
import type { Context } from '../context.js'
import type { List } from '../steps/nodes.js'
import { serverApp } from '../steps/database-pods.js'
import { isReady, type Pod } from '../steps/pods.js'
import { faultOfMachine } from './fault.js'
import { reunion, soon } from './sign.js'

type DatabasePod = Pod & { readonly metadata: { readonly uid: string } }

/** The database's pods that stay, asked for anew: the act must not hit pods of a moment ago. */
const podsOf = async ({ kubectl, lab }: Context): Promise<readonly DatabasePod[]> => {
  if (!lab.database) return []
  const found = await kubectl.get<List<DatabasePod>>('pods', '--selector', `app=${serverApp(lab.database)}`)
  return found.items.filter(({ metadata }) => metadata.deletionTimestamp === undefined)
}

const podsOn = async (context: Context, on: readonly string[]): Promise<readonly DatabasePod[]> =>
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
            (pod) => !deleted.includes(pod.metadata.uid) && isReady(pod),
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
