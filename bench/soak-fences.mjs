#!/usr/bin/env node
/**
 * `npm run soak:fences -- --runs 200 --seed 1`: on the machines of a lab, a node is fenced while its fence is undone,
 * processes are killed and the target loses its power, all at random moments. After each round, everything that was
 * done to the node must have its undo in the journal; after one more undo the lab must be healthy.
 *   --of storage,power   the kinds of fence that are tried
 *   --lab iscsi-ha       a shipped lab with two workers and a target; it is brought up with fencing: none
 *   --keep               leaves the lab as it is if something was wrong
 */
import { spawn } from 'node:child_process'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { cli, generator, lab, mostSeed, must, state, tidy, variant, whole } from './lab.mjs'

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '200' },
    seed: { type: 'string', default: String((Date.now() % 100_000) + 1) },
    of: { type: 'string', default: 'storage,power' },
    lab: { type: 'string', default: 'iscsi-ha' },
    keep: { type: 'boolean', default: false },
  },
})
const runs = whole('runs', values.runs, 100_000)
const seed = whole('seed', values.seed, mostSeed)
const random = generator(seed)
const methods = values.of.split(',')
const pick = (list) => list[Math.floor(random() * list.length)]

const name = 'fences'
const from = (module) => JSON.stringify(`${dirname(cli)}/${module}`)
const open = `
  const { loadRunning } = await import(${from('lifecycle/load-lab.js')})
  const { providerOf } = await import(${from('lifecycle/provider-in-use.js')})
  const { sessionFor } = await import(${from('command-line/with-lab.js')})
  const lab = await loadRunning('${name}')
  const provider = await providerOf(lab)
  const context = await sessionFor(lab, provider, new AbortController().signal)
  const [node, method] = process.argv.slice(1)`
const programs = {
  /** What the agent does about one node, until the fence is confirmed or was undone. */
  fence: `${open}
  const { attemptFence } = await import(${from('fencing/fence.js')})
  const { holderOf } = await import(${from('lock.js')})
  const { pathsOf } = await import(${from('state.js')})
  for (let round = 0; round < 3; round++) {
    const done = await attemptFence(context, { node, method, by: 'the soak', why: async (noted) =>
      (await holderOf(pathsOf(lab).lock))?.purpose === 'change' ? undefined
        : noted ? (noted.harm ? 'begun before' : undefined) : round === 0 ? 'the soak' : undefined,
    }, AbortSignal.timeout(35_000)).catch((error) => console.error(error.message))
    if (done) break
  }
  process.exit(0)`,
  /** What every command that changes a lab does first. */
  undo: `${open}
  const { settleFences } = await import(${from('fencing/fence.js')})
  const { takeLock } = await import(${from('lock.js')})
  const { undoAll } = await import(${from('trial/undo.js')})
  const { registry } = await import(${from('registry.js')})
  const { pathsOf } = await import(${from('state.js')})
  const release = await takeLock(pathsOf(lab).lock,
    { command: 'soak', purpose: 'change', wait: () => undefined, signal: context.signal })
  await settleFences(lab, context.signal)
  const failed = await undoAll(context, registry)
  await release()
  for (const line of failed) console.error(line)
  process.exit(failed.length === 0 ? 0 : 1)`,
  /** A power cut of the target, which is switched on again a while later. */
  target: `${open}
  const { boot, fileOptions } = await import(${from('steps/machines.js')})
  const target = lab.machines.find(({ role }) => role === 'target')
  await provider.power.cut(lab, target.name)
  await new Promise((resolve) => setTimeout(resolve, Number(method)))
  if (!(await provider.states(lab)).some((each) => each.name === target.name && each.status === 'running'))
    await boot(lab, target, await fileOptions(lab, provider)).apply(context, () => undefined)
  process.exit(0)`,
  /** The state of a node: its access list, its taint, its machine, and its entries in the journal. */
  look: `${open}
  const { readJournal } = await import(${from('journal.js')})
  const { iqn } = lab.machines.find((machine) => machine.name === node)
  const target = lab.machines.find(({ role }) => role === 'target').name
  const patiently = async (act) => { for (let n = 0; ; n++) try { return await act() } catch (error) {
    if (n > 60) throw error
    await new Promise((resolve) => setTimeout(resolve, 500)) } }
  const served = await patiently(() => context.machine(target).run(
    { text: 'systemctl is-system-running --wait >/dev/null 2>&1; ls /sys/kernel/config/target/iscsi/*/tpgt_1/acls', shown: '' }))
  const seen = await patiently(() => context.kubectl.get('node', node))
  const machine = (await provider.states(lab)).find((each) => each.name === node)
  console.log(JSON.stringify({
    access: served.split('\\n').includes(iqn),
    tainted: (seen.spec.taints ?? []).some(({ key }) => key === 'node.kubernetes.io/out-of-service'),
    on: machine.status === 'running',
    journal: (await readJournal(lab)).filter(({ undo }) => undo.machine === node).map(({ undo }) => undo.do),
  }))
  process.exit(0)`,
}

const begin = (program, ...words) => {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', programs[program], ...words], {
    env: { ...process.env, LAB_STATE: state },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk) => (stdout += chunk))
  child.stderr.on('data', (chunk) => (stderr += chunk))
  const ended = new Promise((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  )
  return { child, ended }
}

/** An API server that is busy because a target came back may hang up once; one that never answers ends the soak. */
const look = async (node) => {
  let said = ''
  for (let tries = 0; tries < 5; tries++) {
    const { stdout, stderr } = await begin('look', node).ended
    try {
      return JSON.parse(stdout)
    } catch {
      said = stderr
      await delay(3000)
    }
  }
  throw new Error(`the state could not be read: ${said}`)
}
/** What was done to the node without an undo in the journal. */
const orphaned = ({ access, tainted, on, journal }) => [
  ...(!access && !journal.includes('readmit') ? ['no access list'] : []),
  ...(tainted && !journal.includes('untaint') ? ['tainted'] : []),
  ...(!on && !journal.some((what) => what === 'boot-afresh' || what === 'readmit') ? ['off'] : []),
]
const notWhole = ({ access, tainted, on, journal }) => [
  ...(access ? [] : ['no access list']),
  ...(tainted ? ['tainted'] : []),
  ...(on ? [] : ['off']),
  ...journal.map((what) => `still to undo: ${what}`),
]

let stopped = false
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => (stopped = true))

console.log(`seed ${seed}`)
const file = variant(values.lab, name, (one) => {
  one.fencing = 'none'
})
await must(['up', file])
process.on('uncaughtException', async (error) => {
  console.error(error)
  if (values.keep) console.error(`kept as it is: LAB_STATE=${state}; lab down ${name} ends it`)
  else if ((await lab(['down', name])).code === 0) tidy()
  process.exit(1)
})
const tally = { rounds: 0, fenced: 0, killed: 0, targetCut: 0, orphaned: 0, notWhole: 0 }
for (let round = 1; round <= runs && !stopped; round++) {
  const node = pick(['worker1', 'worker2'])
  const method = pick(methods)
  const moments = {
    undo: random() * 4000,
    kill: random() * 4000,
    killUndo: random() * 6000,
    cut: random() * 4000,
  }
  const does = { undo: random() < 0.8, kill: random() < 0.5, killUndo: random() < 0.3, cut: random() < 0.3 }
  const away = String(Math.round(random() * 3000))
  const at = async (moment, act) => {
    await delay(moment)
    return act()
  }
  const fence = begin('fence', node, method)
  const all = [fence.ended]
  if (does.kill) all.push(at(moments.kill, () => fence.child.kill('SIGKILL')))
  if (does.undo)
    all.push(
      at(moments.undo, () => {
        const undo = begin('undo', node)
        return Promise.all([
          undo.ended,
          does.killUndo ? at(moments.killUndo, () => undo.child.kill('SIGKILL')) : undefined,
        ])
      }),
    )
  if (does.cut) all.push(at(moments.cut, () => begin('target', node, away).ended))
  await Promise.all(all)
  const between = await look(node)
  const left = orphaned(between)
  // If an undo failed because a machine was booting, the next try succeeds, as the next command would.
  let last
  for (let tries = 0; tries < 5; tries++) {
    last = await begin('undo', node).ended
    if (last.code === 0) break
  }
  const missing = notWhole(await look(node))
  tally.rounds += 1
  tally.fenced += between.tainted ? 1 : 0
  tally.killed += does.kill || (does.undo && does.killUndo) ? 1 : 0
  tally.targetCut += does.cut ? 1 : 0
  tally.orphaned += left.length > 0 ? 1 : 0
  tally.notWhole += missing.length > 0 ? 1 : 0
  const wrong = left.length + missing.length > 0
  if (wrong || round % 10 === 0)
    console.log(
      `${round}/${runs}: ${node} by ${method}, ${JSON.stringify({ does, moments })}: ${
        wrong
          ? `effects without an undo: ${left.join(', ') || 'nothing'}; still there after the undo: ${missing.join(', ') || 'nothing'}; ${last.stderr}`
          : 'well'
      }`,
    )
  if (wrong && values.keep) break
}
console.log(
  `seed ${seed}; ${tally.rounds} of ${runs} rounds: fenced when all had ended ${tally.fenced}, with a kill ${tally.killed}, with a power cut of the target ${tally.targetCut}; effects without an undo ${tally.orphaned}, unhealthy after the undo ${tally.notWhole}`,
)
const good = tally.orphaned === 0 && tally.notWhole === 0
if (values.keep && !good) console.log(`kept as it is: LAB_STATE=${state}; lab down ${name} ends it`)
else if ((await lab(['down', name])).code === 0) tidy()
process.exit(good ? (stopped ? 130 : 0) : 1)
