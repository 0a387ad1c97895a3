/**
 * Makes every breakage of the table by hand on real machines: which check names it, with what evidence, and what
 * repairs it.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { execa } from 'execa'
import type { CheckLine, ReportJson } from '../../src/plan/report.js'
import { type Breakage, type Hands, onACluster, onTwoMachines } from './breakages.js'
import { Bench, cli } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

/** The worker that the database does not run on. */
const standbyOf = async (lab: string): Promise<string> => {
  if (lab === 'iscsi') return ''
  const words = ['get', 'pods', '-l', 'app=mysql-server', '-o', 'jsonpath={.items[0].spec.nodeName}']
  return (await bench.ok('kubectl', lab, '--', ...words)) === 'worker1' ? 'worker2' : 'worker1'
}

const handsOn = (lab: string, standby: string): Hands => ({
  standby,
  on: (machine, script) => bench.ok('exec', lab, machine, '--', 'sh', '-c', script),
  kubectl: (...words) => bench.ok('kubectl', lab, '--', ...words),
  signal: async (machine, signal) => {
    const { stdout } = await execa('pgrep', ['-f', `umid=${machine} .*${join(bench.env.LAB_STATE, lab)}/`])
    for (const pid of stdout.split('\n')) process.kill(Number(pid), signal)
  },
  remove: (file) => rm(join(bench.env.LAB_STATE, lab, file)),
})

/** The checks that failed, in the order in which `verify` prints them. */
const failing = async (lab: string): Promise<readonly CheckLine[]> => {
  const report = await bench.json<ReportJson>('verify', lab)
  return report.results.flatMap(({ checks }) => checks.filter(({ ok }) => !ok))
}

/** The command of a hint, as one would type it. */
const type = async (command: string): Promise<string> => {
  const lab = `lab() { '${process.execPath}' '${cli}' "$@"; }`
  const options = { env: bench.env, cwd: bench.folder, stdin: 'ignore', reject: false, all: true } as const
  const { all } = await execa('bash', ['-c', `${lab}\n${command}`], options)
  return all
}

/** Minutes after which no breakage is started, counted from when the lab was up; undefined: all are tried. */
const limit = Number(process.env['LAB_TEST_MINUTES'] ?? Infinity)

const shown = (checks: readonly CheckLine[]): string =>
  checks.map(({ id, saw }) => `${id}: ${saw}`).join('\n') || 'no check says no'

/**
 * How long a busy host's API server may take to answer again, in milliseconds: until then, its failure hides what was
 * broken.
 */
const busy = 60_000

/** What `verify` names first, once it is the expected check, or the time is over. */
const named = async (lab: string, wanted: string, behind: readonly string[]) => {
  const deadline = performance.now() + busy
  for (;;) {
    const found = await failing(lab)
    const first = found.find(({ id }) => !behind.includes(id))
    if (first?.id === wanted || performance.now() > deadline) return { found, first }
  }
}

const tried = async (lab: string, file: string, breakage: Breakage): Promise<void> => {
  const { breaks, check, title, saw, behind = [], hint, typed } = breakage
  const standby = await standbyOf(lab)
  let mended = false
  try {
    await breaks(handsOn(lab, standby))
    const wanted = check.replace('STANDBY', standby)
    const { found, first } = await named(lab, wanted, behind)
    expect(first, shown(found)).toMatchObject({ id: wanted })
    expect(first?.title).toMatch(title)
    expect(first?.saw, shown(found)).toMatch(saw)
    expect(first?.hint).toMatch(hint)
    const said = await type(first?.hint ?? '')
    if (typed === 'mends') await bench.whole(lab)
    else expect(said).toMatch(typed)
    mended = typed === 'mends'
  } finally {
    await breakage.then?.(handsOn(lab, standby))
    if (!mended) {
      await bench.up(file)
      await bench.whole(lab)
    }
  }
}

describe('lab verify names everything that people break on two machines, and the hint it prints repairs it', () => {
  beforeAll(async () => {
    await bench.up('iscsi')
  })

  for (const breakage of onTwoMachines)
    it(breakage.what, async () => {
      await tried('iscsi', 'iscsi', breakage)
    })
})

describe.skipIf(onACluster.length === 0)(
  'lab verify names everything that people break in a cluster, and the hint it prints repairs it',
  () => {
    let file = ''
    let since = 0
    beforeAll(async () => {
      // Nothing here waits for a takeover, and on a busy host a node that is only late must not be fenced.
      file = await bench.variant('iscsi-ha', 'ha', (lab) => {
        Object.assign(lab, { failover: 'default' })
      })
      await bench.up(file)
      since = performance.now()
    })

    for (const breakage of onACluster)
      it(breakage.what, async ({ skip }) => {
        skip(performance.now() - since > limit * 60_000, `no time was left after ${String(limit)} min`)
        await tried('ha', file, breakage)
      })
  },
)
