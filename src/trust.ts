/**
 * Whose files and folders lab does what they say. Whoever may write the folder of a lab chooses the program that
 * `lab ssh` starts, and whoever may write the cache the kubectl that it runs. So all of it belongs to whoever runs
 * lab, or to root, and nobody else may write it or a folder above it. Asked of the file system without a pause, so
 * that nothing was read before.
 */
import { execFileSync } from 'node:child_process'
import { lstatSync, readdirSync, readFileSync, readlinkSync, type Stats } from 'node:fs'
import { lstat, mkdir, stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { exitCodes, LabError, systemError, systemReason } from './error.js'

/** How a place is called, and how another one is chosen: for the words of a refusal. */
export interface Place {
  /** The variable that names another one; absent for a file that was named on the command line. */
  readonly variable?: string
  /** What is done with what lies there: `lab would run what is in it`. */
  readonly danger: string
}

const myself = (): number => process.getuid?.() ?? 0

/**
 * Those whose word is ours: our user, and of root's the one who typed sudo. Whoever may type sudo is root if he
 * likes; Git reckons the same way.
 */
const ours = (): readonly number[] => {
  const me = myself()
  const behindSudo = Number(process.env['SUDO_UID'] ?? '')
  return me === 0 && Number.isInteger(behindSudo) && behindSudo > 0 ? [me, behindSudo] : [me]
}

const textOf = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** The fields of the entry of a user or group in /etc/passwd or /etc/group. */
const entryOf = (file: string, id: number): readonly string[] | undefined =>
  textOf(file)
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields[2] === String(id))

const userName = (uid: number): string => entryOf('/etc/passwd', uid)?.[0] ?? `user ${String(uid)}`
const groupName = (gid: number): string => entryOf('/etc/group', gid)?.[0] ?? `group ${String(gid)}`

/**
 * Whether a group is one that has nobody in it but its user, as Debian makes one for each user: what such a group
 * may write, nobody else may.
 */
const isPrivateGroup = (gid: number): boolean => {
  if (gid !== process.getgid?.()) return false
  try {
    const fields =
      entryOf('/etc/group', gid) ??
      execFileSync('getent', ['group', String(gid)], { encoding: 'utf8', timeout: 5000 })
        .trim()
        .split(':')
    const { username } = userInfo()
    const members = (fields[3] ?? '').split(',').filter((name) => name !== '' && name !== username)
    return fields[0] === username && members.length === 0
  } catch {
    return false
  }
}

/**
 * The owner that the kernel shows in a user namespace for everybody who is not in it, as of `/` in a container of
 * an ordinary user. Who that is cannot be told from inside; what it owns above our own folders is the container's.
 */
const isOutside = (uid: number): boolean =>
  uid === Number(textOf('/proc/sys/kernel/overflowuid') || '65534') &&
  !/^\s*0\s+0\s+4294967295\s*$/.test(textOf('/proc/self/uid_map') || '0 0 4294967295')

/** What is wrong with the owner and the mode of something; undefined: nothing. */
const wrongWith = (stats: Stats, owners: (uid: number) => boolean): string | undefined => {
  if (!owners(stats.uid)) return `belongs to ${userName(stats.uid)}`
  // Links have no mode of their own.
  if (stats.isSymbolicLink()) return undefined
  // In a folder like /tmp everybody may make something, and nobody may touch what is another's.
  if (stats.isDirectory() && stats.mode & 0o1000) return undefined
  if (stats.mode & 0o002) return 'may be written by everybody'
  if (stats.mode & 0o020 && stats.gid !== 0 && !isPrivateGroup(stats.gid))
    return `may be written by the group ${groupName(stats.gid)}`
  return undefined
}

const elsewhere = ({ variable }: Place): readonly string[] =>
  variable === undefined
    ? []
    : [`or another folder, of your own: ${variable}=$HOME/.${variable.toLowerCase().replace('_', '-')} lab …`]

const refusal = (path: string, wrong: string, stats: Stats, place: Place, below: string): LabError => {
  const me = myself()
  const user = userName(me)
  const sudo = me === 0 ? '' : 'sudo '
  const foreign = wrong.startsWith('belongs')
  const above = path !== below
  const remedy = !foreign
    ? `${ours().includes(stats.uid) ? '' : sudo}chmod go-w ${path}`
    : stats.uid === 0
      ? `what root made, root looks at: sudo -E lab …`
      : above
        ? undefined
        : `if you trust all that is in it: ${sudo}chown -R ${user} ${path}`
  const own =
    place.variable === undefined
      ? [`a copy of your own: cp -r ${below} ~/, then name that one`]
      : elsewhere(place)
  return new LabError(
    'not-trusted',
    `${path} ${wrong}${above ? `, and ${below} lies in it` : ''}: ${place.danger}`,
    {
      hint: [...(remedy === undefined ? [] : [remedy]), ...own].join('\n').replace(/^or /, ''),
      exitCode: exitCodes.host,
    },
  )
}

/** What may not be looked at: of what and whose it is, and what to type. Throws on what is a mistake of ours. */
export const unreadable = (path: string, error: unknown, place: Place): LabError => {
  const found = systemError(error, path)
  if (!found) throw error
  if ((error as NodeJS.ErrnoException).code === 'ENOTDIR')
    return new LabError('no-folder', `${path} is a file, where a folder is wanted`, {
      hint: elsewhere(place).join('\n').replace(/^or /, ''),
      exitCode: exitCodes.host,
      cause: error,
    })
  // Of itself where it may be looked at, else of the folder that does not let us.
  const whose = [path, dirname(path)].find((each) => {
    try {
      return !ours().includes(lstatSync(each).uid)
    } catch {
      return false
    }
  })
  const owner = whose === undefined ? '' : `; ${whose} belongs to ${userName(lstatSync(whose).uid)}`
  const root = owner !== '' && myself() !== 0
  return new LabError(found.code, `${found.message}${owner}`, {
    hint: [...(root ? [`as its owner, or as root: sudo -E lab …`] : []), ...elsewhere(place)]
      .join('\n')
      .replace(/^or /, ''),
    exitCode: exitCodes.host,
    cause: error,
  })
}

const longestChain = 40

/** Root may be trusted with a folder as far as it is above ours: it may write everywhere anyway. */
export type Trust = 'ours' | 'ours-or-root'

const ownersFor =
  (trust: Trust) =>
  (uid: number): boolean =>
    ours().includes(uid) || (trust === 'ours-or-root' && uid === 0)

const isAbove = (uid: number): boolean => ownersFor('ours-or-root')(uid) || isOutside(uid)

/**
 * Refuses a file or folder that another user owns or may write, or could exchange because a folder above it is
 * another's. Links are followed, each of them looked at.
 * @returns where it really is; undefined: it is not there
 * @throws LabError `not-trusted`, with what to type
 */
export const refuseForeign = (
  path: string,
  place: Place,
  trust: Trust = 'ours-or-root',
  kind: 'file' | 'folder' = 'file',
): string | undefined => {
  let at = '/'
  let rest = resolve(path).split('/').filter(Boolean)
  const look = (here: string, last: boolean): Stats | undefined => {
    let stats: Stats | undefined
    try {
      stats = lstatSync(here, { throwIfNoEntry: false })
    } catch (error) {
      throw unreadable(here, error, place)
    }
    if (!stats) return undefined
    // Before whose it is: /dev/null is everybody's.
    if (!stats.isSymbolicLink() && !stats.isDirectory() && (!last || kind === 'folder'))
      throw unreadable(here, Object.assign(new Error(), { code: 'ENOTDIR', syscall: 'scandir' }), place)
    const wrong = wrongWith(stats, last && !stats.isSymbolicLink() ? ownersFor(trust) : isAbove)
    if (wrong !== undefined) throw refusal(here, wrong, stats, place, path)
    return stats
  }
  look('/', rest.length === 0)
  for (let links = 0; rest.length > 0;) {
    const [name = '', ...more] = rest
    const here = join(at, name)
    const stats = look(here, more.length === 0)
    if (!stats) return undefined
    if (!stats.isSymbolicLink()) {
      at = here
      rest = more
      continue
    }
    if (++links > longestChain)
      throw unreadable(here, Object.assign(new Error(), { code: 'ELOOP', syscall: 'stat' }), place)
    rest = [...resolve(at, readlinkSync(here)).split('/').filter(Boolean), ...more]
    at = '/'
  }
  return at
}

/**
 * The same of everything in a folder that itself is good.
 * @param into which folders of it are looked into, by their path from it; default: all
 */
export const refuseForeignIn = (
  folder: string,
  place: Place,
  trust: Trust,
  {
    into = () => true,
    but = () => false,
  }: {
    /** The folders whose content is looked at, too; paths are relative. */
    readonly into?: (path: string) => boolean
    /** What is not looked at. */
    readonly but?: (path: string) => boolean
  } = {},
): void => {
  const owners = ownersFor(trust)
  const walk = (below: string): void => {
    let names: readonly string[]
    try {
      names = readdirSync(join(folder, below))
    } catch (error) {
      // What is gone a moment later is nobody's.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw unreadable(join(folder, below, '.'), error, place)
    }
    for (const name of names) {
      const path = join(below, name)
      if (but(path)) continue
      const full = join(folder, path)
      const stats = lstatSync(full, { throwIfNoEntry: false })
      if (!stats) continue
      const wrong = wrongWith(stats, owners)
      if (wrong !== undefined) throw refusal(full, wrong, stats, place, full)
      // One that never ends would be read for ever.
      if (stats.isFIFO() || stats.isCharacterDevice() || stats.isBlockDevice())
        throw new LabError('not-trusted', `${full} is no ordinary file: ${place.danger}`, {
          hint: `rm ${full}`,
          exitCode: exitCodes.host,
        })
      if (stats.isDirectory() && into(path)) walk(path)
    }
  }
  walk('')
}

/**
 * Makes a folder, with those above it. Step by step: Node's own `recursive` tries for ever where nothing can be
 * made, as below /proc.
 * @throws LabError, which says of which folder it is, and why
 */
export const makeFolder = async (path: string, mode = 0o700): Promise<void> => {
  const missing: string[] = []
  for (let at = resolve(path); ; at = dirname(at)) {
    try {
      if ((await stat(at)).isDirectory()) break
      throw Object.assign(new Error('EEXIST: a file is there'), { code: 'EEXIST' })
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      const dangling =
        code === 'ENOENT' && (await lstat(at).catch(() => undefined))?.isSymbolicLink() === true
      if (code !== 'ENOENT' || dangling) throw cannotMake(path, at, dangling ? 'EDANGLING' : code, error)
      missing.unshift(at)
    }
  }
  for (const folder of missing)
    await mkdir(folder, { mode }).catch(async (error: unknown) => {
      const { code } = error as NodeJS.ErrnoException
      // Somebody else was quicker.
      if (code === 'EEXIST' && (await stat(folder).catch(() => undefined))?.isDirectory()) return
      throw cannotMake(path, folder, code, error)
    })
}

/** lock.ts and writePrivate serve both the state folder and the cache. */
const anotherPlace =
  'another place: LAB_STATE=$HOME/.lab-state lab …, or for parts LAB_CACHE=$HOME/.lab-cache lab …'

/**
 * What a file of ours could not be written for, as an error that names its folder. The system's own errors name a
 * temporary file, or none: a write to an open file knows no path.
 * @returns the error itself where it is not about the host
 */
export const cannotWrite = (folder: string, error: unknown): unknown => {
  const { code = '' } = error as NodeJS.ErrnoException
  const reason = error instanceof LabError ? undefined : systemReason(code)
  if (reason === undefined) return error
  return new LabError(`system-${code.toLowerCase()}`, `${folder} cannot be written to: ${reason}`, {
    hint: code === 'ENOSPC' || code === 'EDQUOT' ? `df -h ${folder}\nor ${anotherPlace}` : anotherPlace,
    exitCode: exitCodes.host,
    cause: error,
  })
}

const cannotMake = (path: string, at: string, code: string | undefined, cause: unknown): LabError => {
  const where = at === path ? '' : ` (at ${at})`
  const reason =
    code === 'EDANGLING'
      ? 'a link is there that leads nowhere'
      : code === 'EEXIST'
        ? 'a file is there'
        : code === 'ENOENT'
          ? `nothing can be made in ${dirname(at)}`
          : (systemReason(code) ?? String(code))
  return new LabError('cannot-make-folder', `${path} cannot be made${where}: ${reason}`, {
    hint: anotherPlace,
    exitCode: exitCodes.host,
    cause,
  })
}
