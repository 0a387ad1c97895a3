/**
 * One target, 29 initiators and 13 LUNs: every initiator sees exactly the LUNs that it should. About 10 minutes on two
 * idle cores, and 4 GiB of memory.
 */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Bench } from './lab.js'

const bench = new Bench()
afterAll(() => bench.close())

const numbers = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index)
const initiators = numbers(29).map((index) => `i${String(index)}`)
const luns = numbers(13)
/** Each LUN is for two or three initiators, the last for all. */
const seenBy = (lun: number): readonly string[] =>
  lun === 12 ? initiators : initiators.filter((_, index) => index % 12 === lun)
const lunsOf = (initiator: string): readonly number[] => luns.filter((lun) => seenBy(lun).includes(initiator))

/** @param masked whether each LUN is for some initiators; otherwise every LUN is for all, which makes 377 mappings */
const lab = (masked: boolean): Promise<string> =>
  bench.variant('iscsi', 'many', (file) => {
    const { iscsi } = file as unknown as { iscsi: { targets: readonly { luns: unknown }[] } }
    for (const target of iscsi.targets)
      target.luns = luns.map((lun) => ({
        lun,
        size: '64MiB',
        initiators: masked ? seenBy(lun) : initiators,
      }))
    Object.assign(file, {
      machines: [
        { name: 'target', role: 'target', address: '192.168.56.70', memory: '256MiB' },
        ...initiators.map((name, index) => ({
          name,
          role: 'initiator',
          address: `192.168.56.${String(100 + index)}`,
          memory: '192MiB',
        })),
      ],
      // One writer for each LUN: the first initiator that sees it.
      filesystems: luns
        .slice(0, 12)
        .map((lun) => ({ initiator: seenBy(lun)[0], lun, directory: 'data', mode: '0777' })),
    })
  })

const on = (machine: string, script: string): Promise<string> =>
  bench.ok('exec', 'many', machine, '--', 'sh', '-c', script)

beforeAll(async () => {
  await bench.up(await lab(true))
}, 1_800_000)

it('a lab with 29 initiators comes up with every check passed, and a second lab up does nothing', async () => {
  await bench.whole('many')
  expect(await bench.up('many')).toEqual([])
})

it('the target itself maps to each initiator its LUNs and no others', async () => {
  const acls = '/sys/kernel/config/target/iscsi/iqn.2016-04.world.srv:target00/tpgt_1/acls'
  const mapped = await on(
    'target',
    `cd ${acls} && for acl in *; do echo $acl $(ls -d $acl/lun_* | sed 's/.*_//'); done`,
  )
  const seen = new Map(
    mapped.split('\n').map((line) => {
      const [name = '', ...of] = line.split(' ')
      return [name.replace(/.*:/, ''), of.map(Number).sort((a, b) => a - b)] as const
    }),
  )
  expect(seen).toEqual(new Map([...initiators].sort().map((name) => [name, lunsOf(name)])))
})

it('an initiator that is logged in sees no disks but its own', async () => {
  const seen = await Promise.all(
    initiators
      .slice(0, 12)
      .map((name) => on(name, "ls /dev/disk/by-path | sed -n 's/.*-lun-//p' | sort -n | tr '\\n' ' '")),
  )
  expect(seen.map((line) => line.trim())).toEqual(
    initiators.slice(0, 12).map((name) => lunsOf(name).join(' ')),
  )
})

it('lab verify names a LUN that an initiator should not see, and lab up removes it again', async () => {
  await on(
    'target',
    `cd /sys/kernel/config/target/iscsi/iqn.2016-04.world.srv:target00/tpgt_1 && acl=$(echo acls/*:i28) && mkdir $acl/lun_0 && ln -s $PWD/lun/lun_0 $acl/lun_0/lun`,
  )
  expect(await bench.complaints('many')).toContain('target00-acl-i28')
  expect(await bench.up('many')).toContain('serve-target00')
  await bench.whole('many')
})

it('a target serves all 13 LUNs to all 29 initiators if the lab file says so', async () => {
  await bench.up(await lab(false))
  await bench.whole('many')
}, 1_800_000)

it('lab down removes 30 machines and leaves nothing behind', async () => {
  expect(await bench.ok('down', 'many')).toContain('nothing left')
})
