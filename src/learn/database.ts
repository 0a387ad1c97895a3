import type { Context } from '../context.js'

interface Pods {
  readonly items: readonly {
    readonly metadata: { readonly deletionTimestamp?: string }
    readonly spec: { readonly nodeName?: string }
    readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] }
  }[]
}

/** The node whose database pod is ready; undefined if the lab has none, or it is unknown. */
export const databaseNode = async ({ lab, kubectl, signal }: Context): Promise<string | undefined> => {
  if (!lab.database) return undefined
  try {
    const { items } = await kubectl.get<Pods>('pods', '--selector', `app=${lab.database.name}-server`)
    return items.find(
      ({ metadata, status }) =>
        metadata.deletionTimestamp === undefined &&
        status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
    )?.spec.nodeName
  } catch {
    signal.throwIfAborted()
    return undefined
  }
}
