/** The agent and its keeper as processes of the built command line, for a lab whose machines do not run. */
import { readFileSync } from 'node:fs'
import { appendFile, mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { keepAgent, startAgent, stopAgent } from '../../src/fencing/process.js'
import { agentState, filesOf } from '../../src/fencing/state.js'
import { holderOf } from '../../src/lock.js'
import { startOf } from '../../src/processes.js'
import { projectRoot } from '../../src/package.js'
import { dist } from '../helpers/cli.js'
import { temporaryFolder } from '../helpers/folder.js'

const lab = { name: 'iscsi-ha' }

// The tests run the sources, which start the built program.
vi.mock('node:child_process', async (original) => {
  const real = await original<typeof import('node:child_process')>()
  return {
    ...real,
    spawn: (program: string, words: readonly string[], options: object) =>
      real.spawn(
        program,
        words.map((word) => (word.endsWith('/cli.js') ? join(dist, 'cli.js') : word)),
        options,
      ),
  }
})

beforeEach(async () => {
  const state = await temporaryFolder()
  vi.stubEnv('LAB_STATE', state)
  await mkdir(join(state, lab.name), { mode: 0o700 })
  const text = readFileSync(join(projectRoot, 'labs', `${lab.name}.yaml`), 'utf8')
  await writeFile(join(state, lab.name, 'lab.yaml'), text, { mode: 0o600 })
  await writeFile(join(state, lab.name, 'provider'), 'uml\n', { mode: 0o600 })
})
afterEach(() => stopAgent(lab))

const agent = async (): Promise<number | undefined> => (await holderOf(filesOf(lab).lock))?.pid
const keeper = async (): Promise<number | undefined> => (await holderOf(filesOf(lab).keeperLock))?.pid

/**
 * Waits until both are there and neither is one of these; the time allows for starting Node.js twice on a busy host.
 */
const both = (...but: readonly (number | undefined)[]): Promise<{ agent: number; keeper: number }> =>
  vi.waitFor(
    async () => {
      const pids = { agent: await agent(), keeper: await keeper() }
      expect(pids.agent).toBeDefined()
      expect(pids.keeper).toBeDefined()
      expect(but).not.toContain(pids.agent)
      expect(but).not.toContain(pids.keeper)
      return pids as { agent: number; keeper: number }
    },
    { timeout: 40_000, interval: 20 },
  )

it('the keeper restarts an agent that was killed, and logs that it ended', async () => {
  await startAgent(lab)
  const first = await both()
  process.kill(first.agent, 'SIGKILL')
  const second = await both(first.agent)
  expect(second.keeper).toBe(first.keeper)
  expect(await readFile(filesOf(lab).log, 'utf8')).toContain('the agent ended (SIGKILL)')
}, 90_000)

it.runIf(process.platform === 'linux')(
  'the keeper outlives everybody who kills every process called fencing-agent',
  async () => {
    await startAgent(lab)
    const pids = await both()
    const called = (pid: number): boolean =>
      readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8')
        .split('\0')
        .includes('fencing-agent')
    expect({ agent: called(pids.agent), keeper: called(pids.keeper) }).toEqual({ agent: true, keeper: false })
  },
  90_000,
)

/** Seconds since this host was booted, as processes count their start. */
const uptime = (): number => Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
/** Linux counts the start of a process in hundredths of a second. */
const startedAt = (pid: number): number => Number(startOf(pid)) / 100

/** How many seconds after a kill the kernel started the new process: what it loads afterwards depends on the host. */
const gapAfter = async (which: 'agent' | 'keeper'): Promise<number> => {
  const before = await both()
  const killed = uptime()
  process.kill(before[which], 'SIGKILL')
  const after = await both(before[which])
  return startedAt(after[which]) - killed
}

it.runIf(process.platform === 'linux')(
  'an agent that is killed is started again within 2 s, and so is its keeper',
  async () => {
    await startAgent(lab)
    const gaps = []
    for (const which of ['agent', 'agent', 'keeper', 'agent', 'keeper'] as const)
      gaps.push({ which, seconds: await gapAfter(which) })
    expect(gaps.filter(({ seconds }) => !(seconds >= -0.02 && seconds <= 2))).toEqual([])
  },
  300_000,
)

it('the agent and a keeper start again when the keeper was killed', async () => {
  await startAgent(lab)
  const first = await both()
  process.kill(first.keeper, 'SIGKILL')
  await both(first.agent, first.keeper)
}, 90_000)

it('stopping the agent ends it and its keeper for good, even right after one was killed', async () => {
  await startAgent(lab)
  const { keeper: killed } = await both()
  process.kill(killed, 'SIGKILL')
  await stopAgent(lab)
  // Longer than an agent would take to come back.
  await new Promise((resolve) => setTimeout(resolve, 3000))
  expect(await agent()).toBeUndefined()
  expect(await keeper()).toBeUndefined()
}, 90_000)

it('the agent reports what it observes, and which nodes it will fence and since when', async () => {
  await startAgent(lab)
  await vi.waitFor(async () => expect(await agentState(lab)).toBeDefined(), { timeout: 40_000 })
  expect(await agentState(lab)).toMatchObject({
    method: 'storage',
    suspended: false,
    watched: [],
    fencing: [],
  })
}, 90_000)

it('the agent says that it sees no node and why, while it cannot ask Kubernetes', async () => {
  await startAgent(lab)
  // The lab has no kubeconfig.
  await vi.waitFor(
    async () =>
      expect((await agentState(lab))?.blind).toEqual({
        since: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
        why: expect.stringContaining('kubectl'),
      }),
    { timeout: 40_000 },
  )
}, 90_000)

it("the agent's log is bounded", async () => {
  await mkdir(filesOf(lab).folder)
  await writeFile(filesOf(lab).wanted, '')
  await appendFile(filesOf(lab).log, 'x'.repeat(1024 ** 2 + 1))
  const ending = new AbortController()
  const keeping = keepAgent(lab, ending.signal)
  const { agent: pid } = await both()
  process.kill(pid, 'SIGKILL')
  await vi.waitFor(async () => expect((await stat(filesOf(lab).log)).size).toBeLessThan(10_000), {
    timeout: 40_000,
  })
  expect((await stat(`${filesOf(lab).log}.1`)).size).toBeGreaterThan(1024 ** 2)
  ending.abort()
  await keeping
}, 90_000)

it('no keeper runs for a lab without fencing', async () => {
  await mkdir(filesOf(lab).folder)
  await keepAgent(lab, new AbortController().signal)
  expect(await keeper()).toBeUndefined()
})
