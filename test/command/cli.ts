import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { desks, type Ran } from '../helpers/cli.js'

export const repository = fileURLToPath(new URL('../..', import.meta.url))

export const labFile = (path: string): string => join(repository, path)

export const newDesk = desks()

/** One error for people: on standard error only, without a stack trace, and nothing on standard output. */
export const expectOneError = ({ stdout, stderr }: Ran, says: string | RegExp): void => {
  expect(stderr).toMatch(says)
  expect(stderr.split('\n').filter((line) => /^(✖|error:)/.test(line))).toHaveLength(1)
  expect(stderr).not.toMatch(/defect of lab|^ +at /m)
  expect(stdout).toBe('')
}

/** Every command that takes a lab, with the words that it needs after the lab's name. */
export const commandsOfLabs: readonly (readonly [command: string, ...more: string[]])[] = [
  ['up'],
  ['down'],
  ['stop'],
  ['start'],
  ['status'],
  ['verify'],
  ['plan'],
  ['validate'],
  ['render'],
  ['prepare'],
  ['ssh', 'target'],
  ['exec', 'all', '--', 'true'],
  ['cp', 'file', 'target:/root/'],
  ['kubectl', '--', 'get', 'nodes'],
  ['logs', 'target'],
  ['events'],
  ['forward', 'target:22'],
  ['run', 'drain'],
  ['power', 'target', 'status'],
  ['heal'],
  ['report'],
]
