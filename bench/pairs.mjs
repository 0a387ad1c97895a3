#!/usr/bin/env node
/**
 * Cuts the power of every two of the seven machines of hacmp at once, 21 pairs in all, and prints a table of what the
 * design predicts and what was measured: `npm run bench:pairs`. A pair takes two to three minutes. The table can be
 * measured in portions: `--results FILE` keeps each result in that file and skips pairs that it already contains, and
 * `--minutes 12` begins no further pair after 12 minutes. `--only target1+master3` measures one pair.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { lab, must, tidy, variant } from './lab.mjs'
import { gapsOf, off, pairs, scenarioOf, scenarios } from './pairs-of-hacmp.mjs'

const { values } = parseArgs({
  options: {
    results: { type: 'string' },
    minutes: { type: 'string', default: 'Infinity' },
    only: { type: 'string' },
  },
})

/** What the design survives: the database (its disk and a node for it), and writes to the API (two of three members). */
const predicted = (pair) => {
  const both = (role) => pair.every((name) => name.startsWith(role))
  const target = pair.some((name) => name.startsWith('target'))
  return {
    database: !both('target') && !both('worker') && !(target && pair.includes('master3')),
    api: !both('master'),
  }
}

/** A service survived if it answered writes again this many milliseconds before power came back. */
const margin = 5000

const begun = performance.now()
const done =
  values.results !== undefined && existsSync(values.results)
    ? JSON.parse(readFileSync(values.results, 'utf8'))
    : []
const save = () => {
  if (values.results !== undefined) writeFileSync(values.results, `${JSON.stringify(done, undefined, 1)}\n`)
}
const nameOf = (pair) => pair.join('+')
const left = pairs.filter(
  (pair) =>
    (values.only === undefined || values.only === nameOf(pair)) &&
    !done.some(({ pair: name }) => name === nameOf(pair)),
)

const file = variant('hacmp', 'hacmp-pairs', (text) => {
  text.scenarios = scenarios
})

const seconds = (ms, atLeast) => (ms === null ? 'none' : `${atLeast ? '≥ ' : ''}${(ms / 1000).toFixed(1)} s`)
const measure = async (pair) => {
  const { code, stdout, stderr } = await lab(['run', file, scenarioOf(pair), '-o', 'json'])
  const [report] = stdout.startsWith('{') ? JSON.parse(stdout).runs : []
  const gaps = gapsOf(report)
  if (gaps === undefined) {
    const said = report?.checks
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ title, saw }) => `${title}: ${saw}`)
    console.error(`${nameOf(pair)}: no figures, exit code ${code}\n${said?.join('\n') ?? stderr}`)
    return false
  }
  const { write, api } = gaps
  const survived = ({ measured, atLeast }) => !atLeast && measured < off - margin
  const findings = report.data.findings.map(({ kind }) => kind)
  done.push({
    pair: nameOf(pair),
    verdict: report.verdict,
    writeGap: write.measured,
    apiGap: api.measured,
    database: survived(write),
    api: survived(api),
    findings,
    text: `${seconds(write.measured, write.atLeast)}, API ${seconds(api.measured, api.atLeast)}`,
    notPassed: report.checks.filter(({ outcome }) => outcome !== 'passed').map(({ title }) => title),
    host: report.host ?? null,
  })
  save()
  console.error(`${nameOf(pair)}: ${done.at(-1).text}, ${findings.join(', ') || 'nothing lost'}`)
  return true
}

const yes = (value) => (value ? 'goes on' : 'stops')
const table = () => {
  console.log(
    '| cut at once | predicted: database | API | measured: database | longest gap | API | longest gap | lost |\n|---|---|---|---|---|---|---|---|',
  )
  for (const pair of pairs) {
    const is = predicted(pair)
    const seen = done.find(({ pair: name }) => name === nameOf(pair))
    console.log(
      `| ${pair.join(', ')} | ${yes(is.database)} | ${yes(is.api)} | ${
        seen
          ? `${yes(seen.database)} | ${seconds(seen.writeGap)} | ${yes(seen.api)} | ${seconds(seen.apiGap)} | ${seen.findings.join(', ') || 'nothing'}`
          : 'not measured | – | – | – | –'
      } |`,
    )
  }
}

let good = true
if (left.length > 0) {
  await must(['up', file])
  for (const pair of left) {
    if ((performance.now() - begun) / 60_000 > Number(values.minutes)) break
    if (!(await measure(pair))) {
      good = false
      await lab(['heal', file])
    }
  }
  await must(['down', file])
}
table()
const wrong = done.filter(({ pair, database, api, findings }) => {
  const is = predicted(pair.split('+'))
  return database !== is.database || api !== is.api || findings.length > 0
})
for (const { pair, text } of wrong) console.log(`not as predicted: ${pair}: ${text}`)
tidy()
process.exit(good && wrong.length === 0 ? 0 : 1)
