/** Which scenarios `lab run` takes for the names that it is given. */
import { describe, expect, it } from 'vitest'
import { chosen } from '../../src/trial/runnable.js'
import { loadLab, registry } from '../../src/registry.js'

const hacmp = await loadLab('hacmp')

const names = (...words: readonly string[]): readonly string[] =>
  chosen(hacmp, registry, words, false).map(({ name }) => name)

describe('the scenarios that are run', () => {
  it('the scenarios that are run are those that are named, in that order', () => {
    expect(names('targets-apart', 'target-hang')).toEqual(['targets-apart', 'target-hang'])
  })

  it('the scenarios that are run are each machine in turn for a series', () => {
    const found = names('power-cut-any')
    expect(found).toHaveLength(hacmp.machines.length)
    expect(found.every((name) => name.startsWith('power-cut-any-'))).toBe(true)
  })

  it('no scenario is run if a name is only the beginning of another, and the message lists those', () => {
    expect(() => names('target')).toThrow('hacmp has no scenario target')
  })
})
