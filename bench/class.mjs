#!/usr/bin/env node
/**
 * The needs of a class: for each number of seats, how long it takes to come up and to be verified through its cards,
 * memory and processor time of an idle seat, and students' scripts that run while a seat is reset. Needs root.
 *   --lab iscsi --size small --seats 1,5,15,30 --students 5
 * Prints a line per number, and JSON as the last line. Other programs on the host affect the figures.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, loadavg } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { cli, tidy } from './lab.mjs'

const { values } = parseArgs({
  options: {
    lab: { type: 'string', default: 'iscsi' },
    size: { type: 'string', default: 'small' },
    seats: { type: 'string', default: '1,5,15,30' },
    students: { type: 'string', default: '5' },
  },
})
const classes = mkdtempSync('/var/tmp/lab-bench-')
process.env.LAB_CLASSES = classes
const { runAtSeat } = await import('../dist/class/seat.js')
const { readClass } = await import('../dist/class/class.js')

const run = (...words) =>
  new Promise((resolve) => {
    const begun = performance.now()
    const child = spawn(process.execPath, [cli, 'class', ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (said += data))
    child.once('close', (code) => resolve({ code, said, seconds: (performance.now() - begun) / 1000 }))
  })

/**
 * Processes of the class's accounts: bytes of memory, with each shared page counted once; and seconds of processor
 * time.
 */
const used = () => {
  const accounts = new Map(
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .filter(([name]) => name.startsWith(`lab-${values.lab}-`))
      .map(([name, , uid]) => [uid, name]),
  )
  let memory = 0
  let ticks = 0
  let processes = 0
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    try {
      const uid = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
      if (!accounts.has(uid)) continue
      const pss = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      memory += Number(pss ?? 0) * 1024
      ticks += Number(fields[11]) + Number(fields[12])
      processes++
    } catch {
      // It ended in the meantime, or is a zombie.
    }
  }
  return { memory, cpu: ticks / 100, processes }
}
const free = () => Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))[1]) * 1024

const rows = []
let good = true
for (const count of values.seats.split(',').map(Number)) {
  const freeBefore = free()
  const words = ['--count', String(count), '--size', values.size, '--listen', '127.0.0.1:8655']
  const up = await run('up', values.lab, ...words)
  if (up.code !== 0) {
    console.error(up.said)
    good = false
    await run('down', '--wait')
    if (up.code === 3) continue
    break
  }
  await delay(5000)
  const before = used()
  const from = performance.now()
  const freeAtRest = free()
  await delay(20_000)
  const after = used()
  const rest = (after.cpu - before.cpu) / ((performance.now() - from) / 1000) / count
  const verify = await run('verify')
  // Students who work at the same time, and a seat that is reset meanwhile.
  const file = await readClass(values.lab)
  const workers = file.seats.slice(0, Math.min(Number(values.students), count - 1))
  const script =
    'for turn in 1 2 3; do lab exec iscsi initiator -- sh -c "dd if=/dev/zero of=/mnt/target00-lun-0/x bs=64k count=64 conv=fsync" && lab verify iscsi || exit 1; done >/dev/null 2>&1'
  const begun = performance.now()
  const [reset, ...works] = await Promise.all([
    count > 1 ? run('reset', String(count)) : undefined,
    ...workers.map(({ id }) => runAtSeat({ class: file, id }, ['sh', '-c', script], { timeout: 600_000 })),
  ])
  const work = (performance.now() - begun) / 1000
  const board = await run('status')
  const down = await run('down')
  const row = {
    seats: count,
    up: up.seconds,
    verify: verify.seconds,
    ready: verify.said.split('\n').filter((line) => / ready {2}/.test(line)).length,
    memory: after.memory / count / 1024 ** 2,
    memoryOfHost: (freeBefore - freeAtRest) / count / 1024 ** 2,
    processes: after.processes / count,
    restPercent: rest * 100,
    students: workers.length,
    work,
    worked: works.filter(({ exitCode }) => exitCode === 0).length,
    reset: reset?.seconds ?? null,
    resetCode: reset?.code ?? null,
    board: /(\d+) of (\d+) seats ready/.exec(board.said)?.[0] ?? board.said,
    down: down.seconds,
    left: /\d+ left/.exec(down.said)?.[0] ?? down.said,
    load: loadavg()[0],
  }
  rows.push(row)
  console.log(
    `${count} seats: up ${row.up.toFixed(0)} s, verified ${row.ready} in ${row.verify.toFixed(0)} s; a seat holds ${row.memory.toFixed(0)} MiB (the host lost ${row.memoryOfHost.toFixed(0)}), rests at ${row.restPercent.toFixed(1)} % of a processor; ${row.worked} of ${row.students} students worked for ${row.work.toFixed(0)} s while a seat was reset${row.reset === null ? '' : ` in ${row.reset.toFixed(0)} s`}; ${row.board}; down ${row.down.toFixed(0)} s, ${row.left}; load ${row.load.toFixed(1)}`,
  )
  good &&= verify.code === 0 && down.code === 0 && (reset?.code ?? 0) === 0 && row.worked === workers.length
}
rmSync(classes, { recursive: true, force: true })
tidy()
console.log(JSON.stringify({ processors: availableParallelism(), lab: values.lab, size: values.size, rows }))
process.exit(good ? 0 : 1)
