#!/usr/bin/env node
/**
 * `npm run soak:kill -- --runs 20 --lab iscsi-ha --seed 1`: lab is killed (kill -9 and Ctrl-C alternately) at random
 * moments of `up`, and must converge when it is started again; then `down` must leave nothing.
 */
import { parseArgs } from 'node:util'
import { generator, lab, mostSeed, tidy, whole } from './lab.mjs'

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '20' },
    lab: { type: 'string', default: 'iscsi-ha' },
    seed: { type: 'string', default: String((Date.now() % 100_000) + 1) },
    // The kill falls within this many seconds: about the duration of an undisturbed `up`.
    within: { type: 'string', default: '65' },
  },
})
const random = generator(whole('seed', values.seed, mostSeed))
const runs = whole('runs', values.runs, 100_000)
const within = whole('within', values.within, 3600)
const tally = { converged: 0, failed: 0, left: 0 }
let fresh = true
console.log(`seed ${values.seed}`)
for (let run = 1; run <= runs; run++) {
  // `lab up` needs 5 s to see that a lab is already up.
  const after = random() * (fresh ? within : 5)
  const signal = run % 2 === 0 ? 'SIGINT' : 'SIGKILL'
  let timer
  const killed = await lab(['up', values.lab], {
    started: (child) => (timer = setTimeout(() => child.kill(signal), after * 1000)),
  })
  clearTimeout(timer)
  const again = await lab(['up', values.lab])
  const verified = await lab(['verify', values.lab])
  const good = again.code === 0 && verified.code === 0
  tally[good ? 'converged' : 'failed'] += 1
  console.log(
    `${run}: ${signal} after ${after.toFixed(1)} s (${killed.signal ?? `exit ${killed.code}`}); up again ${again.seconds.toFixed(1)} s, exit ${again.code}; ${verified.stdout.trim().split('\n').at(-1)}`,
  )
  if (!good) console.log(`${again.stdout}\n${again.stderr}\n${verified.stdout}`)
  // Every fourth run begins with the lab that the run before it left; the others begin with nothing.
  fresh = run % 4 !== 0
  if (fresh) {
    const down = await lab(['down', values.lab])
    if (down.code !== 0) {
      tally.left += 1
      console.log(down.stdout)
    }
  }
}
const end = await lab(['down', values.lab])
if (end.code !== 0) tally.left += 1
tidy()
console.log(`converged ${tally.converged}, failed ${tally.failed}, left something ${tally.left}`)
process.exit(tally.failed + tally.left === 0 ? 0 : 1)
