/** Files for images that are fetched from Maven Central and PyPI. */
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { enterScript, runApart, runInside } from './enter.js'
import { mavenRepository } from './maven.js'
import type { Part } from './part.js'
import { partsFolder, type Pins, referenceOf } from './pins.js'
import { reproducible } from './debian.js'

const pinnedJars = 'jars.sha256'

/** The jars of an image. Each is compared with its pinned digest before anything opens it. */
export const jars = (pins: Pins, id: string, title: string, recipe: string): Part => {
  const script = join(partsFolder, 'fetcher', 'jars.sh')
  const list = join(partsFolder, 'images', recipe, pinnedJars)
  return {
    id,
    title,
    needs: [],
    lane: 'images',
    values: {},
    files: [script, list],
    reference: referenceOf(pins, 'fetched'),
    build: async (build) => {
      const { repository, proxy, login } = await mavenRepository()
      const auth = join(build.work, 'auth')
      await writeFile(auth, login)
      build.say(`Fetching ${title} from ${repository.host}`)
      await runApart(build, ['bash', '/lab/jars.sh', repository.href.replace(/\/$/, '')], {
        inputs: { '/lab/jars.sh': script, [`/lab/${pinnedJars}`]: list, '/lab/auth': auth },
        network: true,
        environment: { ...(proxy !== undefined && { https_proxy: proxy, http_proxy: proxy }) },
        blame: {
          code: 'fetch',
          reason: `${title} could not be fetched from ${repository.host}`,
          hint: 'check the network and https_proxy, and ~/.m2/settings.xml if this host uses a mirror of Maven Central',
        },
      })
    },
  }
}

/** The Python packages of an image. pip compares each with its pinned digest. */
export const python = (pins: Pins, id: string, title: string, recipe: string): Part => {
  const script = join(partsFolder, 'fetcher', 'python.sh')
  const requirements = join(partsFolder, 'images', recipe, 'requirements.txt')
  return {
    id,
    title,
    needs: ['fetcher'],
    lane: 'images',
    values: {},
    files: [script, enterScript, requirements],
    reference: referenceOf(pins, 'fetched'),
    build: async (build) => {
      build.say(`Fetching ${title}`)
      const settings = '/etc/pip.conf'
      await runInside(build, ['bash', '/lab/fetch.sh'], {
        root: 'fetcher',
        binds: [],
        inputs: {
          '/lab/fetch.sh': script,
          '/lab/requirements.txt': requirements,
          // This host's pip settings: its index and trusted hosts.
          ...(existsSync(settings) && { [settings]: settings }),
        },
        network: true,
        environment: { HOME: '/tmp', ...reproducible },
        blame: {
          code: 'fetch',
          reason: `${title} could not be fetched, or is not what is pinned`,
          hint: 'check the network, and /etc/pip.conf if this host uses its own mirror',
        },
      })
    },
  }
}
