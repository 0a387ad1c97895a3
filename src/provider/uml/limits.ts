/** The memory and the number of processes that this process may still use, on the host and in its control groups. */
import { readdirSync, readFileSync } from 'node:fs'
import { freemem } from 'node:os'
import { dirname, join } from 'node:path'

/** Reads a file below a root, which is `/` except in tests; undefined if it does not exist. For /proc and /sys. */
type Read = (path: string) => string | undefined

export const readBelow =
  (root: string): Read =>
  (path) => {
    try {
      return readFileSync(join(root, path), 'utf8')
    } catch {
      return undefined
    }
  }

const host = readBelow('/')

/**
 * The control groups of this process for one controller, the innermost first. Each has its own limits, and the lowest
 * counts. In a container, the mount shows only the groups below it.
 */
const controlGroups = (
  controller: 'memory' | 'pids',
  read: Read,
): readonly { folder: string; v2: boolean }[] => {
  const memberships = (read('/proc/self/cgroup') ?? '').split('\n').map((line) => {
    const [, controllers = '', ...path] = line.split(':')
    return { controllers: controllers.split(','), path: path.join(':') }
  })
  const mounts = (read('/proc/self/mountinfo') ?? '').split('\n').map((line) => {
    const [before = '', after = ''] = line.split(' - ')
    const [, , , root = '/', point = ''] = before.split(' ')
    const [type = '', , options = ''] = after.split(' ')
    return { root, point, type, options: options.split(',') }
  })
  return mounts.flatMap(({ root, point, type, options }) => {
    const v2 = type === 'cgroup2'
    if (!v2 && !(type === 'cgroup' && options.includes(controller))) return []
    const path = memberships.find(({ controllers }) =>
      v2 ? controllers.join('') === '' : controllers.includes(controller),
    )?.path
    if (path === undefined) return []
    const below = path === root ? '/' : path.startsWith(`${root}/`) ? path.slice(root.length) : path
    const folders: { folder: string; v2: boolean }[] = []
    for (let at = join('/', below); ; at = dirname(at)) {
      folders.push({ folder: join(point, at), v2 })
      if (at === '/') break
    }
    return folders
  })
}

const number = (text: string | undefined): number | undefined => {
  const value = Number((text ?? '').trim() || 'none')
  return Number.isFinite(value) ? value : undefined
}

const field = (text: string | undefined, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text ?? '')?.[1] ?? '0')

export interface Memory {
  /** The amount that can be used without swapping. */
  readonly bytes: number
  /** The file with the limit; absent if the host itself is the limit. */
  readonly limit?: string
}

/** The free memory of the host, or of the most limited control group of this process. */
export const availableMemory = (read: Read = host): Memory => {
  const found = /MemAvailable:\s+(\d+) kB/.exec(read('/proc/meminfo') ?? '')
  let least: Memory = { bytes: found ? Number(found[1]) * 1024 : freemem() }
  for (const { folder, v2 } of controlGroups('memory', read)) {
    const used = number(read(join(folder, v2 ? 'memory.current' : 'memory.usage_in_bytes')))
    // The page cache is reclaimed on demand.
    const cached = field(read(join(folder, 'memory.stat')), v2 ? 'inactive_file' : 'total_inactive_file')
    for (const name of v2 ? ['memory.max', 'memory.high'] : ['memory.limit_in_bytes']) {
      const limit = number(read(join(folder, name)))
      if (limit === undefined || used === undefined) continue
      const bytes = Math.max(0, limit - Math.max(0, used - cached))
      if (bytes < least.bytes) least = { bytes, limit: join(folder, name) }
    }
  }
  return least
}

export interface TaskLimit {
  /** The name of the limit: `ulimit -u 512`. */
  readonly bound: string
  /** How many more processes and threads are allowed. */
  readonly free: number
  readonly hint: string
}

/** Processes and threads of a user. */
const tasksOfUser = (uid: number, read: Read, pids: () => readonly string[]): number =>
  pids().reduce((count, pid) => {
    const status = read(`/proc/${pid}/status`) ?? ''
    return Number(/^Uid:\s+(\d+)/m.exec(status)?.[1] ?? '-1') === uid
      ? count + Number(/^Threads:\s+(\d+)/m.exec(status)?.[1] ?? '1')
      : count
  }, 0)

const numberedProcesses = (): readonly string[] => readdirSync('/proc').filter((name) => /^\d+$/.test(name))

/**
 * Every limit for processes and threads: of this user (`ulimit -u`), and of control groups. Each process of a machine
 * is a process of the host.
 * @param uid the first limit does not apply to root, whose machines run as users of their own
 */
export const taskLimits = (
  uid: number = process.getuid?.() ?? 0,
  read: Read = host,
  pids: () => readonly string[] = numberedProcesses,
): readonly TaskLimit[] => {
  const limits: TaskLimit[] = []
  const mine = number(/^Max processes\s+(\d+)/m.exec(read('/proc/self/limits') ?? '')?.[1])
  if (mine !== undefined)
    limits.push({
      bound: `ulimit -u ${String(mine)}`,
      free: mine - (uid === 0 ? 0 : tasksOfUser(uid, read, pids)),
      hint: 'ulimit -u unlimited, or nproc in /etc/security/limits.conf; ulimit -Hu shows the highest value you may set',
    })
  for (const { folder } of controlGroups('pids', read)) {
    const limit = number(read(join(folder, 'pids.max')))
    const used = number(read(join(folder, 'pids.current')))
    if (limit !== undefined && used !== undefined)
      limits.push({
        bound: `${join(folder, 'pids.max')}: ${String(limit)}`,
        free: limit - used,
        hint: 'give the container or slice more: docker run --pids-limit, TasksMax=, UserTasksMax=',
      })
  }
  return limits
}
