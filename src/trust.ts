/**
 * Decides whose files and folders lab obeys. Anyone who can write the folder of a lab chooses the program that `lab
 * ssh` starts, and anyone who can write the cache chooses the kubectl that lab runs. So all of it must belong to the
 * user who runs lab, or to root, and nobody else may be able to write it or a folder above it. The checks are
 * synchronous, so that nothing is read before they end.
 */
import { execFileSync } from 'node:child_process'
import { lstatSync, readdirSync, readFileSync, readlinkSync, type Stats } from 'node:fs'
import { lstat, mkdir, stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { exitCodes, LabError, systemError, systemReason } from './error.js'

/** The name of a place and how to choose another one, for the message of a refusal. */
export interface Place {
  /** The variable that names another place; absent for a file given on the command line. */
  readonly variable?: string
  /** The danger of its content: `lab would run what is in it`. */
  readonly danger: string
}

const myself = (): number => process.getuid?.() ?? 0

/**
 * The users we trust: our own, and for root also the user who typed sudo, who can become root anyway. Git does the
 * same.
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

/** The fields of a user or group in /etc/passwd or /etc/group. */
const entryOf = (file: string, id: number): readonly string[] | undefined =>
  textOf(file)
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields[2] === String(id))

const userName = (uid: number): string => entryOf('/etc/passwd', uid)?.[0] ?? `user ${String(uid)}`
const groupName = (gid: number): string => entryOf('/etc/group', gid)?.[0] ?? `group ${String(gid)}`

/**
 * Whether a group has no member but its user, as Debian creates one for each user: then nobody else can write what
 * the group can.
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
 * The owner that the kernel shows in a user namespace for every user outside it, such as that of `/` in an
 * unprivileged container. The real owner cannot be determined from inside; what it owns above our own folders belongs
 * to the container.
 */
const isOutside = (uid: number): boolean =>
  uid === Number(textOf('/proc/sys/kernel/overflowuid') || '65534') &&
  !/^\s*0\s+0\s+4294967295\s*$/.test(textOf('/proc/self/uid_map') || '0 0 4294967295')

/** What is wrong with the owner or the mode of a file; undefined if nothing is. */
const wrongWith = (stats: Stats, owners: (uid: number) => boolean): string | undefined => {
  if (!owners(stats.uid)) return `belongs to ${userName(stats.uid)}`
  // Links have no mode of their own.
  if (stats.isSymbolicLink()) return undefined
  // In a sticky folder such as /tmp, everybody may create files, but nobody may touch those of others.
  if (stats.isDirectory() && stats.mode & 0o1000) return undefined
  if (stats.mode & 0o002) return 'is writable by everybody'
  if (stats.mode & 0o020 && stats.gid !== 0 && !isPrivateGroup(stats.gid))
    return `is writable by the group ${groupName(stats.gid)}`
  return undefined
}

const elsewhere = ({ variable }: Place): readonly string[] =>
  variable === undefined
    ? []
    : [
        `or use another folder, of your own: ${variable}=$HOME/.${variable.toLowerCase().replace('_', '-')} lab …`,
      ]

const refusal = (path: string, wrong: string, stats: Stats, place: Place, below: string): LabError => {
  const me = myself()
  const user = userName(me)
  const sudo = me === 0 ? '' : 'sudo '
  const foreign = wrong.startsWith('belongs')
  const above = path !== below
  const remedy = !foreign
    ? `${ours().includes(stats.uid) ? '' : sudo}chmod go-w ${path}`
    : stats.uid === 0
      ? 'root made it, so use it as root: sudo -E lab …'
      : above
        ? undefined
        : `if you trust everything in it: ${sudo}chown -R ${user} ${path}`
  const own =
    place.variable === undefined
      ? [`make a copy of your own: cp -r ${below} ~/, then name that one`]
      : elsewhere(place)
  return new LabError(
    'not-trusted',
    `${path} ${wrong}${above ? `, and ${below} is inside it` : ''}: ${place.danger}`,
    {
      hint: [...(remedy === undefined ? [] : [remedy]), ...own].join('\n').replace(/^or /, ''),
      exitCode: exitCodes.host,
    },
  )
}

/**
 * A file that we may not stat: says which it is, whose it is, and what to type. Rethrows errors that are defects of
 * lab.
 */
export const unreadable = (path: string, error: unknown, place: Place): LabError => {
  const found = systemError(error, path)
  if (!found) throw error
  if ((error as NodeJS.ErrnoException).code === 'ENOTDIR')
    return new LabError('no-folder', `${path} is a file, but a folder is expected`, {
      hint: elsewhere(place).join('\n').replace(/^or /, ''),
      exitCode: exitCodes.host,
      cause: error,
    })
  // The path itself if we may stat it, or else the folder that denies access.
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

/** Root may own what lies above our folder, since root can write everywhere anyway. */
export type Trust = 'ours' | 'ours-or-root'

const ownersFor =
  (trust: Trust) =>
  (uid: number): boolean =>
    ours().includes(uid) || (trust === 'ours-or-root' && uid === 0)

const isAbove = (uid: number): boolean => ownersFor('ours-or-root')(uid) || isOutside(uid)

/**
 * Refuses a file or folder that another user owns, can write, or can replace because a folder above it belongs to
 * another user. Links are followed, and each one is checked.
 * @returns the real path, or undefined if it does not exist
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
    // Before the owner: everybody may write /dev/null.
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
 * Checks everything inside a trusted folder in the same way.
 * @param into which subfolders to descend into, by relative path; default: all
 */
export const refuseForeignIn = (
  folder: string,
  place: Place,
  trust: Trust,
  {
    into = () => true,
    but = () => false,
  }: {
    /** Selects the subfolders to descend into, by relative path. */
    readonly into?: (path: string) => boolean
    /** Selects the paths that are not checked. */
    readonly but?: (path: string) => boolean
  } = {},
): void => {
  const owners = ownersFor(trust)
  const walk = (below: string): void => {
    let names: readonly string[]
    try {
      names = readdirSync(join(folder, below))
    } catch (error) {
      // A file that disappears meanwhile is no danger.
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
      // A file without an end would be read forever.
      if (stats.isFIFO() || stats.isCharacterDevice() || stats.isBlockDevice())
        throw new LabError('not-trusted', `${full} is not an ordinary file: ${place.danger}`, {
          hint: `rm ${full}`,
          exitCode: exitCodes.host,
        })
      if (stats.isDirectory() && into(path)) walk(path)
    }
  }
  walk('')
}

/**
 * Makes a folder and its missing parents, one by one: Node's own `recursive` loops forever where nothing can be made,
 * such as below /proc.
 * @throws LabError with the folder concerned and the reason
 */
export const makeFolder = async (path: string, mode = 0o700): Promise<void> => {
  const missing: string[] = []
  for (let at = resolve(path); ; at = dirname(at)) {
    try {
      if ((await stat(at)).isDirectory()) break
      throw Object.assign(new Error('EEXIST: a file is in the way'), { code: 'EEXIST' })
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
      // Another process was faster.
      if (code === 'EEXIST' && (await stat(folder).catch(() => undefined))?.isDirectory()) return
      throw cannotMake(path, folder, code, error)
    })
}

/** What to type if nothing can be written below a path: the variable that leads there, if there is one. */
const anotherPlace = (path: string): string => {
  const variable = ['LAB_STATE', 'LAB_CACHE', 'LAB_CONFIG', 'LAB_CLASSES'].find((name) => {
    const folder = process.env[name]
    return folder && `${resolve(path)}/`.startsWith(`${resolve(folder)}/`)
  })
  return variable === undefined
    ? 'use another place: LAB_STATE=$HOME/.lab-state lab …, or for parts LAB_CACHE=$HOME/.lab-cache lab …'
    : `use another place: ${variable}=$HOME/.${variable.toLowerCase().replace('_', '-')} lab …`
}

/**
 * The error for a file of lab that could not be written, with its folder. System errors name a temporary file or no
 * file at all, since a write to an open file knows no path.
 * @returns the error itself if the host is not its cause
 */
export const cannotWrite = (folder: string, error: unknown): unknown => {
  const { code = '' } = error as NodeJS.ErrnoException
  const reason = error instanceof LabError ? undefined : systemReason(code)
  if (reason === undefined) return error
  return new LabError(`system-${code.toLowerCase()}`, `${folder} cannot be written to: ${reason}`, {
    hint:
      code === 'ENOSPC' || code === 'EDQUOT'
        ? `df -h ${folder}\nor ${anotherPlace(folder)}`
        : anotherPlace(folder),
    exitCode: exitCodes.host,
    cause: error,
  })
}

const cannotMake = (path: string, at: string, code: string | undefined, cause: unknown): LabError => {
  const where = at === path ? '' : ` (at ${at})`
  const reason =
    code === 'EDANGLING'
      ? 'a broken symbolic link is in the way'
      : code === 'EEXIST'
        ? 'a file is in the way'
        : code === 'ENOENT'
          ? `nothing can be created in ${dirname(at)}`
          : (systemReason(code) ?? String(code))
  return new LabError('cannot-make-folder', `${path} cannot be created${where}: ${reason}`, {
    hint: anotherPlace(path),
    exitCode: exitCodes.host,
    cause,
  })
}
