#!/usr/bin/env node
/**
 * `npm run test:course`: every experiment of the course, and one report of all. Labs come up one after the other, and
 * a lab whose experiments another's machines can do has none of its own. A lab that fails does not keep the others
 * from being tried.
 *   --labs wordpress,cassandra  only these
 *   --into FOLDER               where the report goes: without it, `course-report/all` in the current folder
 * Exit code: 0, when every experiment of every lab passed.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { saveRun } from '../dist/report/folder.js'
import { lab, state, tidy } from './lab.mjs'

/** Who lends its machines to whom; a lab that is not here has its own. */
const guests = { statefulset: ['statefulset', 'deployment', 'replicaset'] }
const hosts = ['statefulset', 'deployment-ha', 'wordpress', 'zookeeper', 'cassandra']

const { values } = parseArgs({
  options: {
    labs: { type: 'string', default: hosts.flatMap((host) => guests[host] ?? [host]).join(',') },
    into: { type: 'string', default: 'course-report/all' },
  },
})
const wanted = values.labs.split(',')

/** MiB that the machines of a lab hold on this host: what they share counts once for each, as nothing is shared. */
const memoryOf = (name) => {
  let kib = 0
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      if (!command.includes(join(state, name)) || !command.includes('umid=')) continue
      kib += Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
    } catch {
      // It ended meanwhile.
    }
  }
  return Math.round(kib / 1024)
}

const reports = []
let good = true
const say = (text) => console.log(text)
const failed = (args, { code, stderr }) => {
  good = false
  say(`✖ lab ${args.join(' ')}: exit code ${String(code)}`)
  console.error(stderr.split('\n').slice(-12).join('\n'))
}

for (const host of hosts) {
  const labs = (guests[host] ?? [host]).filter((name) => wanted.includes(name))
  if (labs.length === 0) continue
  const up = await lab(['up', host])
  if (up.code === 0) say(`${host}: up after ${up.seconds.toFixed(0)} s`)
  else failed(['up', host], up)
  for (const name of up.code === 0 ? labs : []) {
    const args = ['run', name, '--all', '-o', 'json', ...(name === host ? [] : ['--on', host])]
    const ran = await lab(args)
    const { runs = [] } = ran.stdout.startsWith('{') ? JSON.parse(ran.stdout) : {}
    reports.push(...runs)
    for (const { verdict, scenario, seconds } of runs)
      say(`  ${verdict.padEnd(7)}  ${name} ${scenario.name}, ${seconds.toFixed(0)} s`)
    if (ran.code !== 0) failed(args, ran)
  }
  if (up.code === 0) say(`  ${String(memoryOf(host))} MiB held by its machines`)
  const down = await lab(['down', host])
  if (down.code !== 0) failed(['down', host], down)
}

const missing = wanted.filter((name) => !hosts.some((host) => (guests[host] ?? [host]).includes(name)))
for (const name of missing) say(`✖ ${name}: no lab of the course`)
if (reports.length > 0) {
  const folder = resolve(values.into)
  mkdirSync(folder, { recursive: true })
  await saveRun(folder, reports)
  console.log(`report: ${join(folder, 'report.html')}`)
}
tidy()
process.exit(good && missing.length === 0 && reports.length > 0 ? 0 : 1)
