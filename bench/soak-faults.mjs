#!/usr/bin/env node
/**
 * `npm run soak:faults -- --runs 50 --seed 1 --lab iscsi-ha`: power cuts, partitions, hangs, drains, reboots and
 * faults of the target, at random moments, while the ledger is written. Nothing acknowledged may be lost, every fault
 * must be healed, and the lab must be as before after every run. Every seventh run, on average, is killed at a random
 * moment, and `lab heal` heals the lab at once. Limits are measured, but do not decide: times are the job of the
 * benchmark.
 *
 * Every round begins on a lab that is healthy according to `lab verify`. On a busy host the agent may fence a node
 * whose kubelet is late, in or between runs. That is not a defect, and is counted separately; it is a defect if `lab
 * heal` does not make the lab healthy again.
 *   --of power-cut,partition  only these kinds; also scenarios of the lab file by name
 *   --each 50                 this many of every kind, in random order, instead of --runs
 *   --keep                    leaves the lab as it is at the end, and stops at once if data was harmed
 * Ctrl-C ends the current run, prints the tally, and takes the lab down.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { generator, lab, median, mostSeed, state, tidy, whole } from './lab.mjs'

const anyPlug = ['target-serving', 'target-waiting', 'master1', 'master2', 'master3', 'database', 'standby']
/** How often each kind is drawn, relative to the others, and its scenarios: of one lab, and of all others. */
const kindsOfHacmp = {
  'power-cut': { weight: 4, scenarios: anyPlug.map((plug) => `power-cut-any-${plug}`) },
  'control-plane': { weight: 3, scenarios: ['leader-cut', 'endpoint-cut', 'one-apart', 'quorum-lost'] },
  partition: { weight: 2, scenarios: ['replication-cut', 'targets-apart', 'clients-cut'] },
  hang: { weight: 1, scenarios: ['target-hang'] },
  orderly: { weight: 1, scenarios: ['target-reboot', 'target-maintenance'] },
  disk: {
    weight: 2,
    scenarios: ['target-disk-error', 'copy-disk-error', 'target-disk-full', 'etcd-disk-full'],
  },
}
const kindsOfOthers = {
  'power-cut': { weight: 3, scenarios: ['power-cut'] },
  partition: { weight: 3, scenarios: ['partition', 'api-partition', 'storage-partition'] },
  hang: { weight: 1, scenarios: ['hang'] },
  drain: { weight: 1, scenarios: ['drain'] },
  reboot: { weight: 1, scenarios: ['reboot'] },
  target: { weight: 2, scenarios: ['target-loss', 'target-power-cut'] },
}
/** The share of runs that are killed. */
const killed = 1 / 7
/** The latest second of a run at which it is killed: it is healing itself by then. */
const latestKill = 60
/** The longest pause between runs, in seconds. */
const longestPause = 10

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '50' },
    each: { type: 'string' },
    of: { type: 'string' },
    lab: { type: 'string', default: 'iscsi-ha' },
    seed: { type: 'string', default: String((Date.now() % 100_000) + 1) },
    keep: { type: 'boolean', default: false },
  },
})
const seed = whole('seed', values.seed, mostSeed)
const random = generator(seed)

const kinds = values.lab === 'hacmp' ? kindsOfHacmp : kindsOfOthers
const chosen = (values.of?.split(',') ?? Object.keys(kinds)).map((name) => ({
  kind: name,
  ...(kinds[name] ?? { weight: 1, scenarios: [name] }),
}))
const draw = () => {
  let rest = random() * chosen.reduce((sum, { weight }) => sum + weight, 0)
  const { kind, scenarios } = chosen.find(({ weight }) => (rest -= weight) < 0) ?? chosen.at(-1)
  return { kind, scenario: scenarios[Math.floor(random() * scenarios.length)] }
}
const shuffled = (list) => {
  const all = [...list]
  for (let last = all.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    ;[all[last], all[other]] = [all[other], all[last]]
  }
  return all
}
const drawn =
  values.each === undefined
    ? Array.from({ length: whole('runs', values.runs, 100_000) }, draw)
    : shuffled(
        Array.from({ length: whole('each', values.each, 100_000) }, (_, index) =>
          chosen.map(({ kind, scenarios }) => ({ kind, scenario: scenarios[index % scenarios.length] })),
        ).flat(),
      )
// The whole sequence is drawn in advance, so that the outcome of a run does not change the runs after it.
const plan = drawn.map((one) => ({
  ...one,
  pause: random() * longestPause,
  killAfter: random() < killed ? random() * latestKill : undefined,
}))

const stop = new AbortController()
let child
// Detached: a terminal sends Ctrl-C to all of its programs, and `lab` takes a second one as a request to stop at once.
const run = (args) => lab(args, { detached: true, started: (process) => (child = process) })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => {
    stop.abort()
    child?.kill('SIGINT')
  })

let folder
/** Brings the lab up; its name and its folder are in the output. */
const bringUp = async () => {
  const up = await run(['up', values.lab])
  if (up.code !== 0) {
    if (!stop.signal.aborted) console.log(`lab up ${values.lab}: exit ${up.code}\n${up.stdout}\n${up.stderr}`)
    return false
  }
  folder = JSON.parse((await lab(['status', values.lab, '-o', 'json'])).stdout).files.folder
  return true
}
let left = 0
const takeDown = async () => {
  // This must not be interrupted.
  child = undefined
  const down = await lab(['down', values.lab], { detached: true })
  if (down.code === 0) return true
  left += 1
  console.log(`lab down ${values.lab}: exit ${down.code}\n${down.stdout}\n${down.stderr}`)
  return false
}

const latest = () => {
  const link = join(folder, 'runs', 'latest')
  return existsSync(link) ? join(folder, 'runs', readlinkSync(link)) : undefined
}
/** The report that it printed, or else the one that it saved before it failed. */
const reportOf = (stdout, saved) => {
  for (const text of [() => stdout, () => readFileSync(join(saved, 'report.json'), 'utf8')])
    try {
      const value = JSON.parse(text())
      const report = value.runs ? value.runs[0] : value
      if (report) return report
    } catch {
      // Then the other one; if there is neither, the result is unknown, and is counted as such.
    }
  return undefined
}
const openFaults = () => {
  const journal = join(folder, 'faults')
  return existsSync(journal) ? readdirSync(journal).filter((name) => name.endsWith('.json')) : []
}
/** Whether it is the fence of a late node, and not something that a run left behind. */
const isByAgent = (name) => {
  try {
    const { by, kind } = JSON.parse(readFileSync(join(folder, 'faults', name), 'utf8'))
    return kind === 'fence' && by === 'the fencing agent'
  } catch {
    return false
  }
}

/** The result of a run. `report` is undefined if there is none; `open` is the journal of faults afterwards. */
const outcomeOf = (report, open) => {
  const left = open.filter((name) => !isByAgent(name))
  // If a node is fenced, the checks fail, and rightly so.
  const fenced = open.length > left.length
  const checks = report?.checks ?? []
  const after = checks.filter(({ group }) => group === 'after')
  const findings = report?.data?.findings ?? []
  const writes = (wanted) =>
    findings
      .filter(({ kind }) => kind === wanted)
      .reduce((sum, { seqs }) => sum + Math.max(1, seqs.length), 0)
  const gap = report?.budgets.find(({ name }) => name === 'writeGap')
  return {
    verdict: report?.verdict ?? 'no report',
    findings,
    lost: writes('LOST'),
    corrupt: writes('CORRUPT'),
    doubleWriters: findings.some(({ kind }) => kind === 'DOUBLE WRITER') ? 1 : 0,
    // A verdict FAIL, for a missed limit perhaps, may hide an unknown result.
    unknown:
      !report ||
      report.data === null ||
      checks.some(({ group, outcome }) => outcome === 'unknown' && !(fenced && group === 'after'))
        ? 1
        : 0,
    unhealed: Math.max(
      left.length,
      (report?.faults ?? []).filter(({ injected, healed }) => injected && !healed).length,
    ),
    notSteady: fenced || (after.length > 0 && after.every(({ outcome }) => outcome === 'passed')) ? 0 : 1,
    fencedLate: fenced ? 1 : 0,
    overBudget: checks.some(({ group, outcome }) => group === 'budgets' && outcome === 'failed') ? 1 : 0,
    gap: gap?.measured ?? undefined,
    gapText:
      typeof gap?.measured === 'number'
        ? `${gap.atLeast ? 'at least ' : ''}${(gap.measured / 1000).toFixed(1)} s`
        : 'not seen',
    complaints: checks.filter(({ outcome }) => outcome !== 'passed'),
  }
}

const counted = ['lost', 'corrupt', 'doubleWriters', 'unknown', 'unhealed', 'notSteady']
const measured = ['overBudget', 'fencedLate']
const tally = Object.fromEntries(
  [...counted, ...measured, 'notWell', 'cutShort', 'killed'].map((name) => [name, 0]),
)
const done = []
let kept
/** Copies the files that explain a run to a place that `lab down` does not remove. */
const keep = (round, scenario, saved, stderr) => {
  kept ??= mkdtempSync(join('/var/tmp', `lab-soak-${seed}-`))
  const place = join(kept, `${round}-${scenario}`)
  // The agent goes on writing: copy its log, but not its lock and its state.
  const notes = ['fencing/log', 'fencing/fenced.ndjson', ...openFaults().map((name) => `faults/${name}`)]
  if (saved) cpSync(saved, place, { recursive: true })
  mkdirSync(place, { recursive: true })
  for (const note of notes) if (existsSync(join(folder, note))) cpSync(join(folder, note), join(place, note))
  writeFileSync(join(place, 'stderr.txt'), stderr)
  return place
}

const gapText = (milliseconds) => (milliseconds === undefined ? '–' : `${(milliseconds / 1000).toFixed(1)} s`)
const printTally = () => {
  const ofKinds = chosen.map(({ kind }) => `${kind} ${done.filter((one) => one.kind === kind).length}`)
  console.log(`\nseed ${seed}; ${done.length} of ${plan.length} runs: ${ofKinds.join(', ')}`)
  console.log(
    '| scenario | runs | PASS | median of the longest write gaps | longest |\n|---|---|---|---|---|',
  )
  for (const scenario of new Set(chosen.flatMap(({ scenarios }) => scenarios))) {
    const runs = done.filter((one) => one.scenario === scenario)
    const gaps = runs.map(({ gap }) => gap).filter((gap) => gap !== undefined)
    const longest = gaps.length === 0 ? undefined : Math.max(...gaps)
    const passed = runs.filter(({ verdict }) => verdict === 'PASS').length
    console.log(
      `| ${scenario} | ${runs.length} | ${passed} | ${gapText(median(gaps))} | ${gapText(longest)} |`,
    )
  }
  console.log(
    `lost ${tally.lost}, corrupt ${tally.corrupt}, double writers ${tally.doubleWriters}, unknown ${tally.unknown}, unhealed faults ${tally.unhealed}, steady state not reached again ${tally.notSteady}, unhealthy after lab heal ${tally.notWell}; over budget ${tally.overBudget}; late nodes fenced in ${tally.fencedLate} rounds; killed and healed ${tally.killed}${tally.cutShort ? '; 1 run was cut short' : ''}`,
  )
  if (kept) console.log(`files of runs with problems: ${kept}`)
}

/**
 * A run that is killed, followed by `lab heal`: there is no verdict, but the lab must be healthy.
 * @returns the problems, one sentence each
 */
const killedRun = async (scenario, after) => {
  const running = run(['run', values.lab, scenario, '-o', 'json'])
  const victim = child
  const timer = setTimeout(() => victim.kill('SIGKILL'), after * 1000)
  await running
  clearTimeout(timer)
  const healed = await run(['heal', values.lab])
  // Read before `verify`, because the agent may fence a late node at any time.
  const open = openFaults().filter((name) => !isByAgent(name))
  const said = await complaints()
  const fenced = openFaults().some(isByAgent)
  return [
    ...(healed.code === 0 ? [] : [`lab heal: exit ${healed.code}: ${healed.stderr.trim()}`]),
    ...open.map((name) => `not undone: ${join(folder, 'faults', name)}`),
    ...(fenced ? [] : said.map((text) => `lab verify: ${text}`)),
  ]
}

/** The complaints of `lab verify`, one per line; a component may be busy for a moment. */
const complaints = async () => {
  let said = []
  for (let tries = 0; tries < 5 && !stop.signal.aborted; tries++) {
    const { code, stdout } = await lab(['verify', values.lab, '-o', 'json'], { detached: true })
    if (code === 0) return []
    const { results } = JSON.parse(stdout || '{"results":[]}')
    said = results.flatMap(({ checks }) =>
      checks.filter(({ ok }) => !ok).map(({ title, saw }) => `${title}: ${saw}`),
    )
    if (openFaults().length > 0) break
    await delay(3000)
  }
  return said.length > 0 ? said : ['lab verify gave no answer']
}

/** Makes sure that the lab is healthy. @returns whether the soak can continue */
const makeWell = async (round) => {
  let said = await complaints()
  // On a busy host, a node may be late again, and be fenced.
  for (let tries = 0; said.length > 0 && tries < 3 && !stop.signal.aborted; tries++) {
    const fences = openFaults().filter(isByAgent)
    if (fences.length > 0) tally.fencedLate += 1
    const healed = await run(['heal', values.lab])
    const after = await complaints()
    console.log(
      `${round}/${plan.length}: unhealthy before it, ${fences.length > 0 ? 'since a late node was fenced' : said.join('; ')}: lab heal, exit ${healed.code}: ${after.length === 0 ? 'well' : after.join('; ')}`,
    )
    if (after.length > 0) console.log(healed.stderr.trim())
    said = after
  }
  if (stop.signal.aborted) return false
  if (said.length === 0) return true
  tally.notWell += 1
  if (values.keep) return false
  console.log('  a new lab is brought up')
  return (await takeDown()) && (await bringUp())
}

/** @returns whether the soak can continue */
const soak = async () => {
  for (const [index, { kind, scenario, pause, killAfter }] of plan.entries()) {
    const round = index + 1
    await delay(pause * 1000, undefined, { signal: stop.signal }).catch(() => undefined)
    if (stop.signal.aborted || !(await makeWell(round))) return false
    if (killAfter !== undefined) {
      const wrong = await killedRun(scenario, killAfter)
      if (stop.signal.aborted) return false
      tally.killed += 1
      tally.unhealed += wrong.length > 0 ? 1 : 0
      console.log(
        `${round}/${plan.length}: ${scenario}, killed after ${killAfter.toFixed(1)} s: ${wrong.length === 0 ? 'healthy after lab heal' : 'unhealthy after lab heal'}`,
      )
      for (const line of wrong) console.log(`  ✖ ${line}`)
      if (wrong.length > 0 && values.keep) return false
      continue
    }
    const before = latest()
    const result = await run(['run', values.lab, scenario, '-o', 'json'])
    if (result.code === 2) {
      console.log(result.stderr)
      return false
    }
    const saved = latest() === before ? undefined : latest()
    const open = openFaults()
    const report = reportOf(result.stdout, saved)
    const outcome = outcomeOf(report, open)
    const cutShort = stop.signal.aborted && (report === undefined || report.interrupted)
    // An interrupted run did not check the end, but its findings count.
    if (cutShort)
      Object.assign(outcome, {
        unknown: 0,
        notSteady: 0,
        overBudget: 0,
        verdict: 'cut short',
        complaints: [],
      })
    else done.push({ kind, scenario, verdict: outcome.verdict, gap: outcome.gap })
    for (const name of [...counted, ...measured]) tally[name] += outcome[name]
    tally.cutShort += cutShort ? 1 : 0
    const harmed = outcome.findings.length > 0
    const clean = counted.every((name) => outcome[name] === 0)
    console.log(
      `${round}/${plan.length}: ${scenario} after ${pause.toFixed(1)} s: ${outcome.verdict}, longest write gap ${outcome.gapText}, ${harmed ? 'findings:' : 'no findings'}`,
    )
    for (const { kind: what, message, evidence } of outcome.findings)
      console.log(`  ${what}: ${message}; ${evidence.join('; ')}`)
    for (const { title, outcome: how, saw } of outcome.complaints)
      console.log(`  ${how === 'failed' ? '✖' : '?'} ${title}: ${saw}`)
    for (const name of open) console.log(`  ✖ not undone: ${join(folder, 'faults', name)}`)
    if (!report) console.log(`  no report; exit ${result.code}; ${result.stderr.trim().split('\n').at(-1)}`)
    if (!clean || (outcome.verdict !== 'PASS' && !cutShort))
      console.log(`  kept: ${keep(round, scenario, saved, result.stderr)}`)
    if (stop.signal.aborted) return false
    if (!harmed) continue
    // So that the following runs only show effects of their own fault.
    if (values.keep) return false
    console.log('  a new lab is brought up')
    if (!(await takeDown()) || !(await bringUp())) return false
  }
  return plan.length === 0 || makeWell(plan.length)
}

console.log(`seed ${seed}`)
const complete = await bringUp()
  .then((up) => up && soak())
  .catch((error) => {
    // The lab and the tally must be printed in any case.
    console.error(error)
    return false
  })
printTally()
if (values.keep) console.log(`kept as it is: LAB_STATE=${state}; lab down ${values.lab} ends it`)
else if (await takeDown()) tidy()
if (left > 0) console.log(`lab down left something ${left} times: ${state}`)
const good = left === 0 && [...counted, 'notWell'].every((name) => tally[name] === 0)
process.exit(!good ? 1 : complete ? 0 : stop.signal.aborted ? 130 : 1)
