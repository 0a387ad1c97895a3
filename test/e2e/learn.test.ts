/** An exercise on a real lab, from beginning to end, and the snapshots that a reset uses. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Bench } from './lab.js'

const bench = new Bench()
beforeAll(async () => {
  await bench.up('iscsi')
}, 180_000)
afterAll(() => bench.close(), 60_000)

test('lab up saves a snapshot called clean, and lab restore brings the lab back to it, healthy', async () => {
  const { snapshots } = await bench.json<{ snapshots: readonly { name: string }[] }>('snapshots', 'iscsi')
  expect(snapshots.map(({ name }) => name)).toEqual(['clean'])
  await bench.ok('exec', 'iscsi', 'all', '--', 'touch', '/root/mine')
  await bench.ok('restore', 'iscsi', 'clean')
  expect(await bench.ok('exec', 'iscsi', 'all', '--', 'ls', '/root')).not.toContain('mine')
  expect(await bench.complaints('iscsi')).toEqual([])
}, 120_000)

test('lab learn --test proves the exercise about CHAP: before, after, wrong attempts, reset', async () => {
  const junit = join(bench.folder, 'junit.xml')
  const { exitCode, stdout } = await bench.lab('learn', 'iscsi', 'chap-login', '--test', '--junit', junit)
  expect(stdout.split('\n').filter((line) => /^[✖-]/.test(line))).toEqual([])
  expect(exitCode).toBe(0)
  expect(await readFile(junit, 'utf8')).toMatch(/<testsuite name="chap-login" tests="\d+" failures="0"/)
}, 240_000)

test('lab learn in a pipe describes the task in plain lines, in the requested language', async () => {
  const { stdout } = await bench.lab('learn', 'iscsi', 'chap-login', '--lang', 'ja')
  expect(stdout).toContain('ステップ 1/5: ディスクを取り外す')
  expect(stdout).not.toContain('\u001b')
}, 60_000)
