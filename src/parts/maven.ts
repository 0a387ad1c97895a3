import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

export interface MavenRepository {
  readonly repository: URL
  /** The credentials for the repository, as apt reads them; empty if there are none. */
  readonly login: string
  /** Maven's own proxy: `http://proxy.example:3128`. */
  readonly proxy?: string
}

const central = 'https://repo.maven.apache.org/maven2'

const text = (xml: string, tag: string): string | undefined =>
  new RegExp(`<${tag}>\\s*([^<]*?)\\s*</${tag}>`).exec(xml)?.[1]

const all = (xml: string, tag: string): string[] =>
  [...xml.matchAll(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`, 'g'))].map(([, content]) => content ?? '')

/** Whether a mirror in these settings replaces Maven Central. */
const mirrorsCentral = (of: string): boolean => {
  const names = of.split(',').map((name) => name.trim())
  return !names.includes('!central') && names.some((name) => ['*', 'external:*', 'central'].includes(name))
}

/**
 * Where Maven on this host would fetch files of Maven Central, and through which proxy: the first mirror of Central
 * and the first active proxy. Any source will do, since files are compared with digests.
 * @param settings the content of a settings.xml
 */
export const repositoryOf = (settings: string): MavenRepository => {
  const xml = settings.replaceAll(/<!--[\s\S]*?-->/g, '')
  const mirror = all(xml, 'mirror').find((each) => mirrorsCentral(text(each, 'mirrorOf') ?? ''))
  const url = mirror === undefined ? undefined : text(mirror, 'url')
  const repository = new URL(url !== undefined && URL.canParse(url) ? url : central)
  const server = all(xml, 'server').find(
    (each) => mirror !== undefined && text(each, 'id') === text(mirror, 'id'),
  )
  const [user, password] = server === undefined ? [] : [text(server, 'username'), text(server, 'password')]
  const login =
    user !== undefined && password !== undefined
      ? `machine ${repository.origin} login ${user} password ${password}\n`
      : ''
  const proxy = all(xml, 'proxy').find((each) => text(each, 'active') !== 'false')
  const host = proxy === undefined ? undefined : text(proxy, 'host')
  return {
    repository,
    login,
    ...(proxy !== undefined &&
      host !== undefined && { proxy: `http://${host}:${text(proxy, 'port') ?? '8080'}` }),
  }
}

/** According to ~/.m2/settings.xml of this host, or Maven Central itself. */
export const mavenRepository = async (): Promise<MavenRepository> =>
  repositoryOf(await readFile(join(homedir(), '.m2', 'settings.xml'), 'utf8').catch(() => ''))
