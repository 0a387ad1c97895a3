/** The database's Deployment and its pods in the cluster, and the images that they run. */
import type { DatabaseSpec, Lab } from '../lab/lab.js'
import type { Context } from '../context.js'
import { isReady, type Pod, pods } from './pods.js'

/** Images under their upstream names, so that a registry's own images serve as well. */
export const images = {
  ubuntu: 'docker.io/library/debian:trixie-slim',
  database: 'docker.io/library/mariadb:11.8',
}

/** The name of its claim, if it has one. */
export const claimOf = (database: DatabaseSpec): string => `${database.name}-data`

export const deploymentExists = async ({ kubectl }: Context, database: DatabaseSpec): Promise<boolean> =>
  (await kubectl.run([
    'get',
    'deployment',
    `${database.name}-server`,
    '--ignore-not-found',
    '-o',
    'name',
  ])) !== ''

/** The label `app` of the server's pods. */
export const serverApp = (database: DatabaseSpec): string => `${database.name}-server`

export const serverPods = async (context: Context, database: DatabaseSpec): Promise<readonly Pod[]> =>
  (await pods(context)).filter(({ metadata }) => metadata.labels?.['app'] === serverApp(database))

export const clientPods = async (context: Context, database: DatabaseSpec): Promise<readonly Pod[]> =>
  (await pods(context)).filter(({ metadata }) => metadata.labels?.['app'] === `${database.name}-client`)

export const nodeOfDatabase = async (context: Context, database: DatabaseSpec): Promise<string | undefined> =>
  (await serverPods(context, database)).find(isReady)?.spec.nodeName

/** The row that this host writes and that clients read. */
export const rowText = (lab: Lab): string => `written from outside the cluster by lab ${lab.name}`
