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
