/**
 * `npm run soak:hosts`: lab is killed (`kill -9`) at random moments of `up` and of `down` on machines that somebody
 * else made; a later `down` must leave each machine as its owner had it. LAB_SOAK_RUNS is the number of runs,
 * LAB_SOAK_SEED decides the moments.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { seenByOwner } from '../hosts/owner.js'
import { type ForeignMachine, password, World } from '../hosts/world.js'

const runs = Number(process.env['LAB_SOAK_RUNS'] ?? 20)
const seed = Number(process.env['LAB_SOAK_SEED'] ?? 1)

/** Numbers from 0 to 1, the same for the same seed: mulberry32. */
const generator = (from: number) => {
  let state = from
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const machines: readonly ForeignMachine[] = [
  { name: 'target', address: '10.20.30.70', memory: 512 },
  { name: 'initiator', address: '10.20.30.71', memory: 512 },
]
const secret = { PI_PASSWORD: password }
let world: World

beforeAll(async () => {
  world = await World.start(machines)
  await writeFile(
    join(world.folder, 'hosts.yaml'),
    `apiVersion: lab.hosts/v1\ndefaults: { user: pi, password: $PI_PASSWORD }\nhosts:\n${machines.map(({ name, address }) => `  ${name}: { address: ${address} }\n`).join('')}`,
  )
})

afterAll(() => world.close())

it(`lab down gives machines back as they were after each of ${String(runs)} kills, seed ${String(seed)}`, async () => {
  const random = generator(seed)
  const lab = async (args: readonly string[], killAfter?: number) => {
    const begun = performance.now()
    const running = world.begin(args, secret)
    const timer =
      killAfter === undefined ? undefined : setTimeout(() => running.kill('SIGKILL'), killAfter * 1000)
    const { exitCode, signal, stdout, stderr } = await running
    clearTimeout(timer)
    return { exitCode, signal, stdout, stderr, seconds: (performance.now() - begun) / 1000 }
  }
  const up = ['up', 'iscsi', '--hosts', 'hosts.yaml', '--yes']
  const before = await Promise.all(machines.map(({ address }) => seenByOwner(world, address)))
  const whole = await lab(up)
  expect(whole.exitCode, whole.stderr).toBe(0)
  const given = await lab(['down', 'iscsi'])
  expect(given.exitCode, given.stderr).toBe(0)
  console.log(`undisturbed: up ${whole.seconds.toFixed(0)} s, down ${given.seconds.toFixed(0)} s`)
  let changed = 0
  for (let run = 1; run <= runs; run++) {
    const inUp = run % 2 === 1
    const after = random() * (inUp ? whole.seconds : given.seconds)
    if (!inUp) expect((await lab(up)).exitCode).toBe(0)
    const killed = await lab(inUp ? up : ['down', 'iscsi'], after)
    const down = await lab(['down', 'iscsi'])
    const now = await Promise.all(machines.map(({ address }) => seenByOwner(world, address)))
    const same = now.every((text, index) => text === before[index])
    // A lab that was not begun is not known yet.
    const good = same && (down.exitCode === 0 || /no such lab|was not up/.test(down.stderr + down.stdout))
    if (!good) changed++
    console.log(
      `${String(run)}: ${inUp ? 'up' : 'down'} killed after ${after.toFixed(1)} s (${killed.signal ?? `exit ${String(killed.exitCode)}`}); down ${down.seconds.toFixed(0)} s, exit ${String(down.exitCode)}; ${same ? 'as before' : 'different'}`,
    )
    if (!good) console.log(`${down.stdout}\n${down.stderr}`)
  }
  expect(changed).toBe(0)
}, 3_600_000)
