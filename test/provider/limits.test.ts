/** Limits of memory and processes, from real files of kernels and containers. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { availableMemory, readBelow, taskLimits } from '../../src/provider/uml/limits.js'
import { temporaryFolder } from '../helpers/folder.js'

const gib = 1024 ** 3

/** A host with these files. */
const hostWith = async (files: Readonly<Record<string, string>>) => {
  const root = await temporaryFolder()
  for (const [path, text] of Object.entries({ '/proc/meminfo': 'MemAvailable:   16777216 kB\n', ...files })) {
    await mkdir(dirname(join(root, path)), { recursive: true })
    await writeFile(join(root, path), text)
  }
  return readBelow(root)
}

const v2 = {
  '/proc/self/cgroup': '0::/user.slice/lab.scope\n',
  '/proc/self/mountinfo':
    '31 23 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec - cgroup2 cgroup2 rw,nsdelegate\n',
}

describe('memory', () => {
  test('free memory is that of the host when no control group limits it', async () => {
    const read = await hostWith({ ...v2, '/sys/fs/cgroup/user.slice/lab.scope/memory.max': 'max\n' })
    expect(availableMemory(read)).toEqual({ bytes: 16 * gib })
  })

  test('free memory is what the control group has left, including reclaimable cache', async () => {
    const group = '/sys/fs/cgroup/user.slice/lab.scope'
    const read = await hostWith({
      ...v2,
      [`${group}/memory.max`]: `${3 * gib}\n`,
      [`${group}/memory.current`]: `${2 * gib}\n`,
      [`${group}/memory.stat`]: `anon 5\ninactive_file ${gib}\nactive_file 7\n`,
    })
    expect(availableMemory(read)).toEqual({ bytes: 2 * gib, limit: `${group}/memory.max` })
  })

  test('free memory is the least that any parent control group has left', async () => {
    const read = await hostWith({
      ...v2,
      '/sys/fs/cgroup/user.slice/lab.scope/memory.max': 'max\n',
      '/sys/fs/cgroup/user.slice/lab.scope/memory.current': '0\n',
      '/sys/fs/cgroup/user.slice/memory.high': `${gib}\n`,
      '/sys/fs/cgroup/user.slice/memory.current': '0\n',
    })
    expect(availableMemory(read)).toEqual({ bytes: gib, limit: '/sys/fs/cgroup/user.slice/memory.high' })
  })

  test('free memory is found in version 1 of control groups, in a container that sees only its own', async () => {
    const group = '/sys/fs/cgroup/memory'
    const read = await hostWith({
      '/proc/self/cgroup': '9:pids:/docker/abc\n4:memory:/docker/abc\n0::/\n',
      '/proc/self/mountinfo':
        '35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n',
      [`${group}/memory.limit_in_bytes`]: `${2 * gib}\n`,
      [`${group}/memory.usage_in_bytes`]: `${gib}\n`,
      [`${group}/memory.stat`]: 'total_inactive_file 0\n',
    })
    expect(availableMemory(read)).toEqual({ bytes: gib, limit: `${group}/memory.limit_in_bytes` })
  })
})

describe('processes', () => {
  const limits = 'Max processes             512                  1024                 processes\n'
  const processes = {
    '/proc/1/status': 'Name:\tinit\nUid:\t0\t0\t0\t0\nThreads:\t1\n',
    '/proc/7/status': 'Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nThreads:\t1\n',
    '/proc/8/status': 'Name:\tnode\nUid:\t1000\t1000\t1000\t1000\nThreads:\t11\n',
  }

  test('processes of a user count with their threads against ulimit -u', async () => {
    const read = await hostWith({ '/proc/self/limits': limits, ...processes })
    expect(taskLimits(1000, read, () => ['1', '7', '8'])).toEqual([
      expect.objectContaining({ bound: 'ulimit -u 512', free: 500 }),
    ])
  })

  test('processes are limited by each control group', async () => {
    const read = await hostWith({
      ...v2,
      '/proc/self/limits': 'Max processes             unlimited            unlimited            processes\n',
      '/sys/fs/cgroup/user.slice/pids.max': '100\n',
      '/sys/fs/cgroup/user.slice/pids.current': '60\n',
    })
    expect(taskLimits(0, read, () => [])).toEqual([
      expect.objectContaining({ bound: '/sys/fs/cgroup/user.slice/pids.max: 100', free: 40 }),
    ])
  })
})
