#!/usr/bin/env node
/**
 * `npm run test:learn`: proves every exercise on its lab, one lab after another, and writes a JUnit file for each. If
 * a lab fails, the others are still tried.
 *   --labs iscsi,iscsi-ha  only the exercises of these
 *   --into FOLDER          where the results go; default: `learn-report` in the current folder
 * Exit code: 0 if every exercise passed; 2 if a lab has no exercises; 130 after Ctrl-C, which removes the lab.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { lab, tidy } from '../../bench/lab.mjs'

const folder = join(import.meta.dirname, '..', '..', 'labs', 'learn')
const labs = readdirSync(folder).map(
  (name) => /^lab: (\S+)/m.exec(readFileSync(join(folder, name, 'exercise.yaml'), 'utf8'))?.[1] ?? '',
)
const known = [...new Set(labs)].sort()
const { values } = parseArgs({
  options: {
    labs: { type: 'string', default: known.join(',') },
    into: { type: 'string', default: 'learn-report' },
  },
})
const wanted = values.labs.split(',')
const unknown = wanted.filter((name) => !known.includes(name))
if (unknown.length > 0) {
  console.error(`--labs ${unknown.join(',')}: no lab with exercises; there are ${known.join(', ')}`)
  tidy()
  process.exit(2)
}
const into = resolve(values.into)
mkdirSync(into, { recursive: true })

let interrupted = false
let working
for (const signal of ['SIGINT', 'SIGTERM'])
  process.on(signal, () => {
    interrupted = true
    working?.kill('SIGINT')
  })
const run = (args) => lab(args, { detached: true, started: (child) => (working = child) })

let good = true
for (const name of wanted) {
  if (interrupted) break
  const up = await run(['up', name])
  console.log(`${name}: up after ${up.seconds.toFixed(0)} s, exit code ${String(up.code)}`)
  if (up.code === 0) {
    const proven = await run(['learn', name, '--test', '--junit', join(into, `${name}.junit.xml`)])
    console.log(proven.stdout)
    if (proven.code !== 0) console.error(proven.stderr)
    good &&= proven.code === 0
  } else {
    console.error(up.stderr)
    good = false
  }
  const down = await lab(['down', name], { detached: true })
  good &&= down.code === 0
}
tidy()
process.exit(interrupted ? 130 : good ? 0 : 1)
