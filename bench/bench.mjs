#!/usr/bin/env node
/**
 * The project's figures: `npm run bench`, `npm run bench -- --runs 3`, `npm run bench -- --cold` (with an empty
 * cache, a quarter of an hour). Prints a table, and JSON behind it. Nothing here passes or fails by time.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { lab, must, tidy } from './lab.mjs'

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '1' }, cold: { type: 'boolean', default: false } },
})
const runs = Number(values.runs)
const rows = []
const note = (name, goal, seconds) => {
  let row = rows.find((candidate) => candidate.name === name)
  if (!row) rows.push((row = { name, goal, seconds: [] }))
  row.seconds.push(Math.round(seconds * 100) / 100)
  console.error(`${name}: ${seconds.toFixed(2)} s`)
}

/** Seconds until the row was written through the node port, as the events say it. */
const upToRow = async (env) => {
  let row
  const result = await must(['up', 'iscsi-ha', '--events'], {
    env,
    onLine: (line, at) => {
      const event = JSON.parse(line)
      if (event.type === 'step-finished' && event.step === 'write-row') row ??= at
    },
  })
  return { row, all: result.seconds }
}

if (values.cold) {
  const cache = mkdtempSync(join('/var/tmp', 'lab-cold-'))
  const { row, all } = await upToRow({ LAB_CACHE: cache })
  note('cold: up iscsi-ha, to the row', 17 * 60, row)
  note('cold: up iscsi-ha, to the end', null, all)
  await must(['down', 'iscsi-ha'])
  rmSync(cache, { recursive: true, force: true })
}

for (let run = 0; run < runs; run++) {
  note('up iscsi', 20, (await must(['up', 'iscsi'])).seconds)
  await must(['down', 'iscsi'])
  const { row, all } = await upToRow()
  note('up iscsi-ha, to the row', 75, row)
  note('up iscsi-ha, to the end', null, all)
  note('up again, nothing to do', 5, (await must(['up', 'iscsi-ha'])).seconds)
  note('verify', 8, (await must(['verify', 'iscsi-ha'])).seconds)
  note('status', 0.5, (await must(['status', 'iscsi-ha'])).seconds)
  const stop = (await must(['stop', 'iscsi-ha'])).seconds
  const start = (await must(['start', 'iscsi-ha'])).seconds
  note('stop', null, stop)
  note('start', null, start)
  note('stop, then start to verified', 45, stop + start)
  note('down', null, (await must(['down', 'iscsi-ha'])).seconds)
}
await lab(['down', 'iscsi-ha'])
tidy()

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]
const host = { cpus: cpus().length, model: cpus()[0]?.model, memory: totalmem(), node: process.version }
const result = rows.map((row) => ({ ...row, median: median(row.seconds), worst: Math.max(...row.seconds) }))
console.log(`| what | goal | median of ${runs} | worst |\n|---|---|---|---|`)
for (const { name, goal, median: middle, worst } of result)
  console.log(
    `| ${name} | ${goal === null ? '' : `${goal} s`} | ${middle.toFixed(1)} s | ${worst.toFixed(1)} s |`,
  )
console.log(JSON.stringify({ schema: 'lab.bench/v1', date: new Date().toISOString(), host, result }))
