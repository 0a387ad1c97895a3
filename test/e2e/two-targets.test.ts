/**
 * labs/iscsi-pair.yaml on real machines: two machines serve one disk. Whichever of them is lost, no acknowledged write
 * is lost, and the initiator continues with the same session and disk.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Bench } from './lab.js'

const bench = new Bench()
const lab = 'iscsi-pair'
const pair = ['target1', 'target2'] as const
type Server = (typeof pair)[number]

/** Milliseconds within which writes must continue: 24 s were measured with two busy processors. */
const longestTakeover = 120_000

const on = (machine: string, script: string): Promise<string> =>
  bench.ok('exec', lab, machine, '--', 'sh', '-c', script)

const peerOf = (machine: Server): Server => (machine === 'target1' ? 'target2' : 'target1')

/** The machine that has the address of the target. */
const serving = async (): Promise<Server> => {
  const found = await Promise.all(
    pair.map(async (name) => {
      const { stdout } = await bench.lab(
        'exec',
        lab,
        name,
        '--',
        'ip',
        '-brief',
        'address',
        'show',
        'to',
        '192.168.56.70/32',
      )
      return stdout.trim() === '' ? [] : [name]
    }),
  )
  const [one, other] = found.flat()
  if (one === undefined || other !== undefined)
    throw new Error(`serving: ${found.flat().join(', ') || 'none'}`)
  return one
}

/** Waits until this machine serves, and no other. */
const servedBy = async (machine: Server): Promise<void> => {
  const deadline = performance.now() + longestTakeover
  while ((await serving().catch(() => undefined)) !== machine) {
    if (performance.now() > deadline) throw new Error(`${machine} does not serve`)
    await delay(500)
  }
}

/** Exchanges the layer below the copy of a disk. */
const exchange = (table: string): string =>
  `dmsetup reload copy-0 --table '${table}' && dmsetup suspend --nolockfs copy-0 && dmsetup resume --noudevsync copy-0`

const isOff = async (machine: Server): Promise<boolean> =>
  (await bench.ok('power', lab, machine, 'status')).startsWith(`${machine} is off`)

/** Appends numbered lines, and syncs each; prints the number and the time of each that is acknowledged. */
const writer = `use strict; use IO::Handle; use Time::HiRes qw(time sleep);
my ($file, $stop) = @ARGV; my $n = 0; $| = 1;
open(my $out, '>', $file) or die "$!\\n";
until (-e $stop) {
  $n++;
  unless (syswrite($out, "$n\\n") and $out->sync) { print "failed $n: $!\\n"; last }
  printf "%d %.3f\\n", $n, time;
  sleep 0.02;
}
`

const folder = '/mnt/target00-lun-0/data'

const identity = (): Promise<string> =>
  on(
    'initiator',
    'cd /dev/disk/by-path && readlink *; ls /sys/class/iscsi_session; cat /sys/block/sda/device/wwid',
  )

interface Written {
  readonly acknowledged: number
  readonly lost: number
  /** Seconds between two writes that were acknowledged. */
  readonly longestGap: number
}

/**
 * Writes while something happens, until writes continue after it.
 * @returns the acknowledged writes, and those of them that are missing when the disk is read again
 */
const writeDuring = async (what: string, happens: () => Promise<void>): Promise<Written> => {
  await on(
    'initiator',
    `rm -f /run/stop /run/acks; nohup perl /run/writer.pl ${folder}/ledger /run/stop >/run/acks 2>&1 </dev/null & sleep 2`,
  )
  const count = async (): Promise<number> => Number(await on('initiator', 'wc -l < /run/acks'))
  await happens()
  const before = await count()
  const deadline = performance.now() + longestTakeover
  // Ten consecutive writes, so that the last one before a stall does not count as the first one after it.
  while ((await count()) < before + 10) {
    if (performance.now() > deadline)
      throw new Error(`${what}: no write within ${String(longestTakeover / 1000)} s`)
    await delay(500)
  }
  await on('initiator', 'touch /run/stop; sleep 1; echo 3 > /proc/sys/vm/drop_caches')
  const acks = (await on('initiator', 'cat /run/acks')).split('\n')
  expect(acks.filter((line) => line.startsWith('failed'))).toEqual([])
  const times = acks.map((line) => Number(line.split(' ')[1]))
  const kept = new Set((await on('initiator', `cat ${folder}/ledger`)).split('\n'))
  const written = {
    acknowledged: acks.length,
    lost: acks.filter((line) => !kept.has(line.split(' ')[0] ?? '')).length,
    longestGap: Math.max(...times.slice(1).map((time, index) => time - (times[index] ?? time))),
  }
  console.log(`${what}: ${JSON.stringify(written)}`)
  return written
}

afterAll(async () => {
  await bench.close()
})

describe('a disk on two machines', () => {
  beforeAll(async () => {
    await bench.up(lab)
    const file = join(bench.folder, 'writer.pl')
    await writeFile(file, writer)
    await bench.ok('cp', lab, file, 'initiator:/run/writer.pl')
  })

  it('a disk on two machines passes every check, and a second lab up has nothing to do', async () => {
    expect(await bench.complaints(lab)).toEqual([])
    expect(await bench.up(lab)).toEqual([])
  })

  it('a disk on two machines is taken over without a lost write, in the same session, when the serving machine loses its power', async () => {
    const lost = await serving()
    const before = await identity()
    expect(
      (await writeDuring('power cut of the one that serves', () => bench.power(lab, lost, 'cut'))).lost,
    ).toBe(0)
    expect(await serving()).toBe(peerOf(lost))
    expect(await identity()).toBe(before)
  })

  it('a disk on two machines has both copies again after lab up, and passes every check', async () => {
    await bench.up(lab)
    expect(await bench.complaints(lab)).toEqual([])
  })

  it('a disk on two machines stays where it is served when the waiting machine loses its power', async () => {
    const serves = await serving()
    const written = await writeDuring('power cut of the one that waits', () =>
      bench.power(lab, peerOf(serves), 'cut'),
    )
    expect(written.lost).toBe(0)
    expect(await serving()).toBe(serves)
    await bench.up(lab)
  })

  it('a disk on two machines is taken over from a machine that hangs, after that machine was switched off', async () => {
    const hangs = await serving()
    expect(
      (await writeDuring('hang of the one that serves', () => bench.power(lab, hangs, 'pause'))).lost,
    ).toBe(0)
    expect(await isOff(hangs)).toBe(true)
    await bench.up(lab)
  })

  it('only one of two machines serves the disk when they cannot reach each other, and the other one is switched off', async () => {
    const written = await writeDuring('partition of the two', async () => {
      const addresses = { target1: '192.168.56.71', target2: '192.168.56.72' }
      const rules = (other: string): string =>
        `nft "add table inet apart; add chain inet apart come { type filter hook prerouting priority -350; }; add rule inet apart come ip saddr ${other} drop"`
      await Promise.all(pair.map((name) => on(name, rules(addresses[peerOf(name)]))))
      const deadline = performance.now() + longestTakeover
      while (!(await isOff('target1')) && !(await isOff('target2'))) {
        if (performance.now() > deadline) throw new Error('neither was switched off')
        await delay(500)
      }
    })
    expect(written.lost).toBe(0)
    const off = await Promise.all(pair.map(isOff))
    expect(off.filter((each) => each)).toHaveLength(1)
    // The remaining machine still has the packet filter rules, and would not receive packets of the other one when it boots.
    await on(off[0] ? 'target2' : 'target1', 'nft delete table inet apart')
    await bench.up(lab)
    expect(await bench.complaints(lab)).toEqual([])
  })

  it('a disk on two machines is served from the other copy when the disk of the serving machine fails, and no machine is switched off', async () => {
    const fails = await serving()
    const table = await on(fails, 'dmsetup table copy-0')
    const size = table.split(' ')[1] ?? ''
    const written = await writeDuring('failing disk of the one that serves', async () => {
      await on(fails, exchange(`0 ${size} error`))
      await servedBy(peerOf(fails))
    })
    expect(written.lost).toBe(0)
    expect(await isOff(fails)).toBe(false)
    expect(await bench.complaints(lab)).toContain(`${fails}-copies`)
    await on(fails, exchange(table.trim()))
    await bench.up(lab)
    expect(await bench.complaints(lab)).toEqual([])
  })

  it('a disk on two machines moves without a lost write when the serving machine is taken out of service, and lab up takes it back', async () => {
    const leaves = await serving()
    const written = await writeDuring('maintenance of the one that serves', async () => {
      await on(peerOf(leaves), `crm_attribute --type nodes --node ${leaves} --name standby --update on`)
      await servedBy(peerOf(leaves))
    })
    expect(written.lost).toBe(0)
    expect(await isOff(leaves)).toBe(false)
    expect(await bench.complaints(lab)).toContain('target00-resources')
    await bench.up(lab)
    expect(await bench.complaints(lab)).toEqual([])
  })

  it('lab up reverts what a person has changed in Pacemaker', async () => {
    await on('target1', 'crm_attribute --type crm_config --name stonith-enabled --update false')
    expect(await bench.complaints(lab)).toContain('target00-cluster')
    expect(await bench.up(lab)).toContain('direct-cluster-target00')
    expect(await bench.complaints(lab)).toEqual([])
  })

  it('a disk on two machines stops and starts as any lab does', async () => {
    await bench.ok('stop', lab)
    await bench.ok('start', lab)
    await bench.whole(lab)
  })
})
