#!/usr/bin/env node
/**
 * `npm run test:course`: every experiment of the course, and one report of all. Labs come up one after the other; a
 * lab whose experiments can use another lab's machines does not get its own. If a lab fails, the others are still
 * tried.
 *   --labs wordpress,cassandra  only these
 *   --into FOLDER               where the report goes; default: `course-report/all` in the current folder
 * Exit code: 0 if every experiment of every lab passed; 2 if a lab has no such name; 130 after Ctrl-C, which ends the
 * experiment cleanly, removes the lab, and reports the results so far.
 */
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { saveRun } from '../../dist/report/folder.js'
import { courseHosts, heldMemory, lab, tidy } from '../../bench/lab.mjs'

/** Which lab lends its machines to which others; a lab that is not listed has its own. */
const guests = { statefulset: ['statefulset', 'deployment', 'replicaset'] }
const known = courseHosts.flatMap((host) => guests[host] ?? [host])

const { values } = parseArgs({
  options: {
    labs: { type: 'string', default: known.join(',') },
    into: { type: 'string', default: 'course-report/all' },
  },
})
const wanted = values.labs.split(',')
const unknown = wanted.filter((name) => !known.includes(name))
if (unknown.length > 0) {
  console.error(`--labs ${unknown.join(',')}: no lab of the course, which has ${known.join(', ')}`)
  tidy()
  process.exit(2)
}

// Labs are not in the terminal's process group: only the one that works is told, once.
let interrupted = false
let working
for (const signal of ['SIGINT', 'SIGTERM'])
  process.on(signal, () => {
    if (interrupted) return
    interrupted = true
    console.log('Interrupted: the lab is brought to an end')
    working?.kill('SIGINT')
  })
const run = (args) => lab(args, { detached: true, started: (child) => (working = child) })
const down = (name) => {
  working = undefined
  return lab(['down', name], { detached: true })
}

const reports = []
let good = true
const say = (text) => console.log(text)
const failed = (args, { code, stderr }) => {
  good = false
  say(`✖ lab ${args.join(' ')}: exit code ${String(code)}`)
  console.error(stderr.split('\n').slice(-12).join('\n'))
}

for (const host of courseHosts) {
  const labs = (guests[host] ?? [host]).filter((name) => wanted.includes(name))
  if (labs.length === 0 || interrupted) continue
  const up = await run(['up', host])
  if (up.code === 0) say(`${host}: up after ${up.seconds.toFixed(0)} s`)
  else if (!interrupted) failed(['up', host], up)
  for (const name of up.code === 0 ? labs : []) {
    if (interrupted) break
    const args = ['run', name, '--all', '-o', 'json', ...(name === host ? [] : ['--on', host])]
    const ran = await run(args)
    const { runs = [] } = ran.stdout.startsWith('{') ? JSON.parse(ran.stdout) : {}
    reports.push(...runs)
    for (const { verdict, scenario, seconds } of runs)
      say(`  ${verdict.padEnd(7)}  ${name} ${scenario.name}, ${seconds.toFixed(0)} s`)
    if (ran.code !== 0 && !interrupted) failed(args, ran)
  }
  if (up.code === 0) say(`  ${String(heldMemory(host))} MiB held by its machines`)
  const gone = await down(host)
  if (gone.code !== 0) failed(['down', host], gone)
}

if (reports.length > 0) {
  const folder = resolve(values.into)
  mkdirSync(folder, { recursive: true })
  await saveRun(folder, reports)
  console.log(`report: ${join(folder, 'report.html')}`)
}
tidy()
process.exit(interrupted ? 130 : good && reports.length > 0 ? 0 : 1)
