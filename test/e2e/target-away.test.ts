/**
 * A target that is away for longer than open-iscsi waits by default (120 s). About 5 min; the target is away for 200 s
 * of them.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Bench } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

beforeAll(async () => {
  await bench.up('iscsi')
})

const mountPoint = '/mnt/target00-lun-0'
const onInitiator = (script: string): Promise<string> =>
  bench.ok('exec', 'iscsi', 'initiator', '--', 'sh', '-c', script)

it('a program that writes is held up for 200 s while its target is away, then continues and loses nothing', async () => {
  // Each line is on the disk before the next one is written.
  await onInitiator(
    `nohup sh -c 'exec >> ${mountPoint}/lines; n=0; while sleep 0.2; do n=$((n + 1)); { echo $n && sync ${mountPoint}/lines; } || touch /root/refused; done' >/dev/null 2>&1 & echo $! > /root/writer`,
  )
  await delay(3000)
  await bench.power('iscsi', 'target', 'cut')
  await delay(200_000)
  await bench.power('iscsi', 'target', 'on')
  const lines = async (): Promise<number> => Number(await onInitiator(`grep -c . ${mountPoint}/lines`))
  const before = await lines()
  await expect.poll(lines, { timeout: 60_000, interval: 1000 }).toBeGreaterThan(before)
  expect(
    await onInitiator(
      `kill $(cat /root/writer); test ! -e /root/refused && awk '$1 != NR { exit 1 }' ${mountPoint}/lines && echo whole`,
    ),
  ).toBe('whole')
  await bench.whole('iscsi')
})

it('lab up restarts a target that lost power, with the file system as it was', async () => {
  await onInitiator(`echo kept > ${mountPoint}/kept; sync`)
  await bench.power('iscsi', 'target', 'cut')
  expect(await bench.complaints('iscsi')).toContain('target-running')
  expect(await bench.up('iscsi')).toContain('boot-target')
  expect(await onInitiator(`cat ${mountPoint}/kept`)).toBe('kept')
  await bench.whole('iscsi')
})
