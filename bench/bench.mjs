#!/usr/bin/env node
/**
 * The project's figures: `npm run bench`, `npm run bench -- --runs 3`, `npm run bench -- --cold` (with an empty cache,
 * a quarter of an hour), `--slow` (also a power cut with Kubernetes' own settings, a quarter of an hour), `--only up`
 * or `--only faults`. Prints a table, and then JSON. Nothing here passes or fails by time. `--only course` measures
 * time and memory of the course's labs, a quarter of an hour. `--only ha` compares hacmp, which has no single point of
 * failure, with iscsi-ha, ten minutes. `--only guard` drains the database's node with and without the guard of its LUN,
 * in turn; with `--runs 10`, a quarter of an hour. `--only vagrant` compares with Vagrant itself, on libvirt: `sudo npm
 * run test:vagrant -- --bench` provides a libvirt.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { setTimeout as delay } from 'node:timers/promises'
import {
  courseHosts,
  giveUp,
  heldMemory,
  lab,
  median,
  must,
  state,
  tidy,
  usedCpu,
  variant,
  whole,
} from './lab.mjs'

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '1' },
    cold: { type: 'boolean', default: false },
    slow: { type: 'boolean', default: false },
    only: { type: 'string' },
  },
})
const parts = ['up', 'faults', 'course', 'ha', 'guard', 'vagrant']
if (values.only !== undefined && !parts.includes(values.only)) {
  console.error(`--only ${values.only}: expected ${parts.join(' or ')}`)
  tidy()
  process.exit(2)
}
const wanted = (part) =>
  values.only === undefined ? part === 'up' || part === 'faults' : values.only === part
const runs = whole('runs', values.runs, 1000)
const rows = []
const note = (name, goal, seconds, unit = 's') => {
  let row = rows.find((candidate) => candidate.name === name)
  if (!row) rows.push((row = { name, goal, unit, seconds: [] }))
  row.seconds.push(Math.round(seconds * 100) / 100)
  console.error(`${name}: ${seconds.toFixed(2)} ${unit}`)
  return row
}

/** Seconds until the row was written through the node port, according to the events. */
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

/**
 * Breaks a lab, and records the longest time without an acknowledged write. A missed limit and two servers that wrote
 * at once are figures as well; any other failure ends the benchmark.
 */
const noteGap = async (name, goal, args, options) => {
  const result = await lab(['run', ...args, '-o', 'json'], options)
  // A run that failed early prints no report.
  const [report] = result.stdout.startsWith('{') ? JSON.parse(result.stdout).runs : []
  const gap = report?.budgets.find((budget) => budget.name === 'writeGap')
  const well =
    report?.data?.unknown.length === 0 &&
    report.data.findings.every(({ kind }) => kind === 'DOUBLE WRITER') &&
    report.checks.every(
      ({ group, outcome }) => ['budgets', 'data'].includes(group) || outcome === 'passed',
    ) &&
    gap.measured !== null &&
    !gap.atLeast
  if (!well) await giveUp(['run', ...args], result)
  const row = note(`${name}, longest write gap`, goal, gap.measured / 1000)
  row.doubleWriters = (row.doubleWriters ?? 0) + (report.data.findings.length > 0 ? 1 : 0)
}

/**
 * The same for a power cut of the database's node in a changed copy of iscsi-ha, which is made and removed for this.
 */
const noteGapOf = async (name, goal, copy, change, options = []) => {
  const file = variant('iscsi-ha', copy, change)
  await must(['up', file])
  await noteGap(name, goal, [file, 'power-cut', ...options])
  await must(['down', file])
}

const faults = async () => {
  await must(['up', 'iscsi-ha'])
  await noteGap('drain', 10, ['iscsi-ha', 'drain'])
  await noteGap('power-cut, failover fast, fencing storage', 25, ['iscsi-ha', 'power-cut'])
  await noteGap('api-partition, failover fast, fencing storage', 35, ['iscsi-ha', 'api-partition'])
  await must(['down', 'iscsi-ha'])
  // The agent of the shipped lab would fence by itself.
  const unfenced = (file) => (file.fencing = 'none')
  await noteGapOf('power-cut --fence, failover fast', 12, 'bench-fence', unfenced, ['--fence'])
  if (!values.slow) return
  await noteGapOf('power-cut, failover default, no fencing', null, 'bench-default', (file) => {
    file.failover = 'default'
    unfenced(file)
    const scenario = file.scenarios.find(({ name }) => name === 'power-cut')
    // NotReady after 50 s, evicted after another 300 s, and then the takeover.
    scenario.deadline = '8min'
    delete scenario.expect
  })
}

const ups = async () => {
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

/** What each lab of the course needs, once its parts are there. */
const course = async () => {
  for (const name of courseHosts) {
    await must(['prepare', name])
    note(`up ${name}`, null, (await must(['up', name])).seconds)
    note(`up ${name}, memory held by its machines (goal: or less)`, 12, heldMemory(name) / 1024, 'GiB')
    await must(['down', name])
  }
}

/** Seconds after `up` until a lab counts as idle, and seconds for which it is watched. */
const [settling, watched] = [30, 60]

/** Time, idle CPU and memory of a lab, and where the seconds of its `up` go. */
const costOf = async (name) => {
  const steps = []
  const { seconds } = await must(['up', name, '--events'], {
    onLine: (line) => {
      const { type, step, seconds: took } = JSON.parse(line)
      if (type === 'step-finished') steps.push({ step, took })
    },
  })
  await delay(settling * 1000)
  const before = usedCpu(name)
  await delay(watched * 1000)
  const cpu = ((usedCpu(name) - before) / watched) * 100
  const memory = heldMemory(name)
  await must(['down', name])
  note(`up ${name}`, null, seconds)
  note(`${name}, idle: CPU of all machines`, null, cpu, '% of one core')
  note(`${name}, idle: memory of all machines`, null, memory, 'MiB')
  const longest = steps.sort((a, b) => b.took - a.took).slice(0, 8)
  console.error(longest.map(({ step, took }) => `  ${step}: ${took.toFixed(1)} s`).join('\n'))
  return { seconds, cpu, memory }
}

/** The price of surviving the loss of any machine. */
const highAvailability = async () => {
  const one = await costOf('iscsi-ha')
  const all = await costOf('hacmp')
  note('ratio of up hacmp to up iscsi-ha (goal: or less)', 2.5, all.seconds / one.seconds, 'x')
  note('ratio of hacmp to iscsi-ha, CPU when idle (goal: or less)', 2, all.cpu / one.cpu, 'x')
  note('ratio of hacmp to iscsi-ha, memory (goal: or less)', 2, all.memory / one.memory, 'x')
}

/** Runs Vagrant itself, in a folder with a Vagrantfile; anything but success ends the benchmark. @returns seconds */
const vagrant = async (folder, ...args) => {
  const begun = performance.now()
  const { status, stdout, stderr } = spawnSync('vagrant', args, {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, VAGRANT_CHECKPOINT_DISABLE: '1' },
  })
  if (status !== 0) await giveUp(['vagrant', 'iscsi', ...args], { code: status, stdout, stderr })
  return (performance.now() - begun) / 1000
}

/** Seconds until the last machine answered over SSH. */
const upToSsh = async () => {
  const reached = []
  await must(['up', 'iscsi', '--provider', 'libvirt', '--yes', '--events'], {
    onLine: (line, at) => {
      const { type, step = '' } = JSON.parse(line)
      if (type === 'step-finished' && step.startsWith('reach-')) reached.push(at)
    },
  })
  return Math.max(...reached)
}

/** The same libvirt machines, made by `lab up`, and by Vagrant alone from the Vagrantfile of `lab render`. */
const againstVagrant = async () => {
  // For the first machines of a box, Vagrant adds the box and libvirt copies it: this run is not comparable.
  await upToSsh()
  const { files } = JSON.parse((await must(['status', 'iscsi', '-o', 'json'])).stdout)
  const [ours, theirs] = [[], []]
  for (let time = 0; time < 5; time++) {
    ours.push((await must(['status', 'iscsi'])).seconds)
    theirs.push(await vagrant(files.folder, 'status'))
  }
  note('libvirt: lab status', 0.5, median(ours))
  note('libvirt: vagrant status', null, median(theirs))
  note(
    'libvirt: ratio of vagrant status to lab status (goal: or more)',
    10,
    median(theirs) / median(ours),
    'x',
  )
  await must(['down', 'iscsi'])

  const folder = mkdtempSync(join('/var/tmp', 'lab-bench-vagrant-'))
  await must(['render', 'iscsi', folder, '--provider', 'libvirt'])
  note('libvirt: time to SSH for all machines of iscsi, vagrant up', null, await vagrant(folder, 'up'))
  await vagrant(folder, 'destroy', '--force')
  rmSync(folder, { recursive: true, force: true })
  note('libvirt: time to SSH for all machines of iscsi, lab up', null, await upToSsh())
  await must(['down', 'iscsi'])
}

/**
 * A copy of this package whose wrappers run a program of the system without asking other nodes first. Its own steady
 * state passes, because it expects the files that it has written.
 */
const withoutGuard = () => {
  const copy = join(state, 'without-guard')
  const here = fileURLToPath(new URL('..', import.meta.url))
  cpSync(here, copy, {
    recursive: true,
    filter: (path) => !['node_modules', '.git'].includes(basename(path)),
  })
  symlinkSync(join(here, 'node_modules'), join(copy, 'node_modules'))
  writeFileSync(
    join(copy, 'templates', 'machine', 'lun-guard-program.sh.hbs'),
    '#!/bin/bash\nexec {{program}} "$@"\n',
  )
  return join(copy, 'dist', 'cli.js')
}

/** What the guard of a LUN adds to a takeover: the same drain with it and without it, on the same machines. */
const guard = async () => {
  await must(['up', 'iscsi-ha'])
  await noteGap('drain, with the guard of the LUN', null, ['iscsi-ha', 'drain'])
  const without = { program: withoutGuard() }
  await must(['up', 'iscsi-ha'], without)
  await noteGap('drain, without the guard of the LUN', null, ['iscsi-ha', 'drain'], without)
  rmSync(join(state, 'without-guard'), { recursive: true })
}

for (let run = 0; run < runs; run++) {
  if (wanted('up')) await ups()
  if (wanted('faults')) await faults()
  if (wanted('course')) await course()
  if (wanted('ha')) await highAvailability()
  if (wanted('guard')) await guard()
  if (wanted('vagrant')) await againstVagrant()
}
await lab(['down', 'iscsi-ha'])
tidy()

const host = { cpus: cpus().length, model: cpus()[0]?.model, memory: totalmem(), node: process.version }
const result = rows.map((row) => ({ ...row, median: median(row.seconds), worst: Math.max(...row.seconds) }))
console.log(`| what | goal | median of ${runs} | worst | runs with two writers |\n|---|---|---|---|---|`)
for (const { name, goal, unit, median: middle, worst, doubleWriters = '' } of result)
  console.log(
    `| ${name} | ${goal === null ? '' : `${goal} ${unit}`} | ${middle.toFixed(1)} ${unit} | ${worst.toFixed(1)} ${unit} | ${doubleWriters} |`,
  )
console.log(JSON.stringify({ schema: 'lab.bench/v1', date: new Date().toISOString(), host, result }))
