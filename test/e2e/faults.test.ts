/**
 * Faults on real machines: those that the lab survives, those that it does not, and that each finding of a report can
 * occur.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { execa } from 'execa'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RunReport } from '../../src/report/schema.js'
import { Bench, type Ran, runComplaints } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

interface Scenario {
  name: string
  deadline?: string
}
interface File {
  failover: string
  fencing: string
  iscsi: { targets: { luns: { size: string }[] }[] }
  scenarios: Scenario[]
}

/** The shipped lab, but with a partition that lasts no longer than the test needs. */
const variant = (name: string, change: (lab: File) => void): Promise<string> =>
  bench.variant('iscsi-ha', name, (shipped) => {
    const lab = shipped as unknown as File
    for (const scenario of lab.scenarios) if (scenario.deadline) scenario.deadline = '45s'
    change(lab)
  })

const kinds = ({ runs }: Ran): readonly string[] =>
  runs.flatMap(({ data }) => data?.findings.map(({ kind }) => kind) ?? [])

const folderOf = (lab: string): string => join(bench.env.LAB_STATE, lab)
const latestReport = async (lab: string): Promise<RunReport> =>
  JSON.parse(await readFile(join(folderOf(lab), 'runs', 'latest', 'report.json'), 'utf8')) as RunReport

const until = async (what: string, wanted: () => Promise<boolean>): Promise<void> => {
  const deadline = performance.now() + 120_000
  while (!(await wanted())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within 120 s`)
    await delay(100)
  }
}

/** Runs SQL as root, in the database's own pod. */
const sql = (lab: string, statements: string): Promise<string> =>
  bench.ok(
    ...['kubectl', lab, '--', 'exec', 'deploy/mysql-server', '-c', 'mysql', '--'],
    ...['mariadb', '-uroot', '-proot', '--skip-column-names', 'test', '-e', statements],
  )

/** Changes the first row of the current run; fails if there is none. */
const changing = `
  ask() { mariadb -uroot -proot --skip-column-names test -e "$1"; }
  table=$(ask "SHOW TABLES LIKE 'lab\\_run\\_%'" | sort | tail -n 1)
  ask "UPDATE $table SET content = 'changed by hand' ORDER BY seq LIMIT 1; SELECT ROW_COUNT()" | grep -qx 1`

describe('a lab with fast failover and fencing at its target', () => {
  beforeAll(async () => {
    await bench.up(
      await variant('faults', ({ iscsi }) => {
        // The whole content is compared.
        for (const lun of iscsi.targets.flatMap(({ luns }) => luns)) lun.size = '1GiB'
      }),
    )
  })

  it('an unattended soak of power cut, partition and drain loses no acknowledged write', async () => {
    // A node that comes back after the first fault must not touch the disk that the second node takes over.
    const { exitCode, runs, stderr } = await bench.run('faults', 'power-cut', 'api-partition', 'drain')
    expect(runComplaints(runs), stderr).toEqual([])
    expect({ exitCode, verdicts: runs.map(({ verdict }) => verdict) }, stderr).toEqual({
      exitCode: 0,
      verdicts: ['PASS', 'PASS', 'PASS'],
    })
    for (const { data, faults } of runs) {
      expect(faults.map(({ acting, gone }) => [acting?.ok, gone?.ok])).toEqual([[true, true]])
      expect(data?.readBack?.fromDisk).toBe(true)
      expect(data?.tally.row.acknowledged).toBeGreaterThan(50)
      expect(data?.tally.file.acknowledged).toBeGreaterThan(50)
    }
    // As its scenario says, the partition lasts until the deadline.
    expect(runs.map(({ recovery }) => recovery?.by)).toEqual(['itself', 'heal', 'itself'])
    const [cut] = runs
    expect(cut?.moments.filter(({ ms }) => ms !== null).map(({ name }) => name)).toEqual(
      expect.arrayContaining(['t0', 't2', 't3', 't4', 't5', 't6']),
    )
    expect(cut?.events.map(({ type }) => type)).toContain('node-fenced')
    expect(cut?.versions['kernel']).toMatch(/^\d+\.\d+/)
    expect(await bench.openFaults('faults')).toEqual([])
    expect(await bench.complaints('faults')).toEqual([])
    const files = await readdir(join(folderOf('faults'), 'runs', 'latest'))
    expect(files).toEqual(expect.arrayContaining(['report.json', 'junit.xml', 'report.md', 'report.html']))
    expect((await bench.lab('report', 'faults')).exitCode).toBe(0)
  })

  it('lab run reports lost writes when durability is switched off, and a row that was changed by hand', async () => {
    // The server answers at once, and writes to the disk much later.
    await sql(
      'faults',
      'SET GLOBAL innodb_flush_log_at_trx_commit = 0; SET GLOBAL innodb_flush_log_at_timeout = 2700',
    )
    const running = bench.run('faults', 'power-cut')
    await until('a fault in the journal', async () => (await bench.openFaults('faults')).length > 0)
    // Deletes the first row, on the other node, as soon as the database runs there: that row was acknowledged.
    const change = async (): Promise<boolean> => {
      const { exitCode } = await bench.lab(
        ...['kubectl', 'faults', '--', 'exec', 'deploy/mysql-server', '-c', 'mysql', '--'],
        ...['bash', '-c', changing],
      )
      return exitCode === 0
    }
    await until('a row to change', change)
    const ran = await running
    expect(kinds(ran), ran.stderr).toEqual(expect.arrayContaining(['LOST', 'CORRUPT']))
    expect({ exitCode: ran.exitCode, verdict: ran.runs[0]?.verdict }).toEqual({
      exitCode: 1,
      verdict: 'FAIL',
    })
  })

  it('lab heal repairs the lab after lab run was killed, and the report says that the run was interrupted', async () => {
    const killed = bench.begin('faults', 'partition')
    await until('a fault in the journal', async () => (await bench.openFaults('faults')).length > 0)
    await delay(1000)
    expect((await bench.lab('run', 'faults', 'drain')).exitCode).toBe(4)
    killed.kill('SIGKILL')
    await killed
    await bench.ok('heal', 'faults')
    expect(await bench.openFaults('faults')).toEqual([])
    expect(await bench.complaints('faults')).toEqual([])
    expect(await bench.ok('exec', 'faults', 'all', '--', 'nft', 'list', 'tables')).not.toContain('lab_fault')
    const report = await latestReport('faults')
    expect(report.interrupted).toBe(true)
    expect(report.verdict).not.toBe('PASS')
  })

  it('a fenced node cannot write to its disk after it resumes, even if its target lost power meanwhile', async () => {
    const pod = ['get', 'pod', '-l', 'app=mysql-server', '-o', 'jsonpath={.items[*].spec.nodeName}']
    const node = (await bench.ok('kubectl', 'faults', '--', ...pod)).trim()
    // A node with unwritten data: pages that wait in its memory, and a program that produces more.
    const fill =
      'cd "$(findmnt --raw --noheadings --output TARGET | grep --max-count=1 /kubernetes.io/iscsi/)" && while :; do date +%N >> lab-fence-probe; done'
    await bench.ok('exec', 'faults', node, '--', 'sh', '-c', `nohup sh -c '${fill}' >/dev/null 2>&1 &`)
    await delay(2000)
    await bench.power('faults', node, 'pause')
    const status = () => bench.json<{ fencing: { fenced: readonly string[] } }>('status', 'faults')
    await until(`${node} fenced`, async () => (await status()).fencing.fenced.includes(node))
    // The other node takes over the disk and gives it back: from here on, no node may write to it.
    const server = ['deployment/mysql-server', '--timeout=120s']
    await bench.ok('kubectl', 'faults', '--', 'rollout', 'status', ...server)
    await bench.ok('kubectl', 'faults', '--', 'scale', 'deployment/mysql-server', '--replicas=0')
    const other = node === 'worker1' ? 'worker2' : 'worker1'
    await until(
      `${other} without a session`,
      async () =>
        (await bench.lab('exec', 'faults', other, '--', 'iscsiadm', '-m', 'session')).exitCode !== 0,
    )
    await bench.power('faults', 'target', 'cut')
    await bench.power('faults', 'target', 'on')
    const portal = ['exec', 'faults', 'target', '--', 'ss', '--no-header', '-ltn', 'sport', '=', '3260']
    await until('the portal', async () => (await bench.lab(...portal)).stdout.includes('LISTEN'))
    const disk = async (): Promise<string> => {
      const folder = join(folderOf('faults'), 'machines', 'target')
      const file = (await readdir(folder)).find((name) => /^lun-.*\.raw$/.test(name)) ?? ''
      return (await execa('sha256sum', [join(folder, file)])).stdout
    }
    const before = await disk()
    await bench.power('faults', node, 'resume')
    // Three times as long as an initiator waits before it tries to log in again.
    await delay(15_000)
    const lists = await bench.ok(
      ...['exec', 'faults', 'target', '--', 'sh', '-c', 'ls /sys/kernel/config/target/iscsi/*/tpgt_1/acls'],
    )
    expect(lists).toContain(other)
    expect(lists).not.toContain(node)
    expect(await disk()).toBe(before)
    await bench.ok('heal', 'faults')
    expect(await bench.openFaults('faults')).toEqual([])
    expect(await bench.complaints('faults')).toEqual([])
  })

  it('lab run heals the lab itself when it is interrupted by Ctrl-C', async () => {
    const interrupted = bench.begin('faults', 'slow-network')
    await until('a fault in the journal', async () => (await bench.openFaults('faults')).length > 0)
    interrupted.kill('SIGINT')
    const { exitCode } = await interrupted
    expect(exitCode).toBe(130)
    expect(await bench.openFaults('faults')).toEqual([])
    expect(await bench.complaints('faults')).toEqual([])
    await bench.ok('down', 'faults')
  })
})

describe('a lab with fast failover and no fencing', () => {
  beforeAll(async () => {
    await bench.up(
      await variant('unsafe', (lab) => {
        lab.fencing = 'none'
      }),
    )
  })

  it('a power cut loses nothing when lab run --fence fences the node', async () => {
    const { exitCode, runs, stderr } = await bench.run('unsafe', 'power-cut', '--fence')
    expect(runComplaints(runs), stderr).toEqual([])
    expect(exitCode).toBe(0)
    expect(runs[0]?.events.map(({ type }) => type)).toContain('node-fenced')
  })

  it('the verdict is UNKNOWN, not PASS, when no client ever reached the database', async () => {
    // Reading back stops the database, and this with it.
    const locked = sql('unsafe', 'FLUSH TABLES WITH READ LOCK; DO SLEEP(40)').catch(() => undefined)
    await delay(2000)
    const { exitCode, stderr } = await bench.run('unsafe', 'drain')
    await locked
    expect({ exitCode }, stderr).toEqual({ exitCode: 5 })
    const report = await latestReport('unsafe')
    expect(report.verdict).toBe('UNKNOWN')
  })

  it('the report names two databases on one disk when a node without fencing loses only the API server', async () => {
    const ran = await bench.run('unsafe', 'api-partition')
    expect({ exitCode: ran.exitCode, verdict: ran.runs[0]?.verdict }, ran.stderr).toEqual({
      exitCode: 1,
      verdict: 'FAIL',
    })
    expect(kinds(ran), ran.stderr).toContain('DOUBLE WRITER')
    await bench.ok('down', 'unsafe')
  })
})
