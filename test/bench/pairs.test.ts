/** The scenarios of the benchmark that cuts the power of two machines at once. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { parseLab } from '../../src/registry.js'

const at = (path: string): URL => new URL(`../../${path}`, import.meta.url)

test('the benchmark of pairs has a valid scenario for each two of the seven machines of hacmp', async () => {
  const { scenarios } = (await import(at('bench/pairs-of-hacmp.mjs').href)) as { scenarios: object[] }
  const file = parse(readFileSync(at('labs/hacmp.yaml'), 'utf8')) as object
  const lab = parseLab(stringify({ ...file, scenarios }), 'hacmp-pairs.yaml')
  expect(lab.scenarios).toHaveLength(21)
})

test('a pair has figures when both gaps were measured, although no node became NotReady', async () => {
  const { gapsOf } = (await import(at('bench/pairs-of-hacmp.mjs').href)) as {
    gapsOf: (report: unknown) => { write: unknown; api: unknown } | undefined
  }
  const write = { name: 'writeGap', measured: 12_190 }
  const api = { name: 'apiGap', measured: 2447 }
  const notReady = { name: 'notReady', measured: null }
  expect(gapsOf({ data: {}, budgets: [write, notReady, api] })).toEqual({ write, api })
  expect(gapsOf({ data: {}, budgets: [write, { ...api, measured: null }] })).toBeUndefined()
  expect(gapsOf(undefined)).toBeUndefined()
})
