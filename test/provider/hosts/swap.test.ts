/** Swap of a node is switched off for good, and switched on again as it was. */
import { beforeEach, describe, expect, test } from 'vitest'
import { switchOffSwap, swapIsOff } from '../../../src/provider/hosts/swap.js'
import { undoRecord } from '../../../src/provider/hosts/undo.js'
import { Recorder } from '../../../src/provider/hosts/undo-record.js'
import { temporaryFolder } from '../../helpers/folder.js'
import { StandIn } from './stand-in.js'

const header = 'Filename\tType\tSize\tUsed\tPriority\n'
let host: StandIn

/** A host with swap in compressed memory by zram-tools, and a partition from /etc/fstab. */
beforeEach(async () => {
  host = new StandIn(await temporaryFolder(), ['/proc/swaps'])
  host.write('/proc/swaps', `${header}/dev/zram0 partition 1 0 100\n/dev/sda2 partition 1 0 -2\n`)
  host.write('/units', 'swap.target static active\nzramswap.service enabled active\n')
  host.program(
    'systemctl',
    `line() { grep "^$1 " $ROOT/units; }
case $1 in
  cat) line "$2" ;;
  is-enabled) if [ -e "$ROOT/masked-$2" ]; then echo masked; else line "$2" | cut -d' ' -f2; fi ;;
  is-active) line "$2" | cut -d' ' -f3 ;;
  mask) shift; [ "$1" != --quiet ] || shift; echo "mask $1" >> $ROOT/did; : > "$ROOT/masked-$1" ;;
  unmask) shift; [ "$1" != --quiet ] || shift; echo "unmask $1" >> $ROOT/did; rm -f "$ROOT/masked-$1" ;;
  *) echo "$*" >> $ROOT/did ;;
esac`,
  )
  host.program('swapoff', `echo "swapoff $*" >> $ROOT/did; sed -i 1q $ROOT/proc/swaps`)
  host.program('swapon', `echo "swapon $*" >> $ROOT/did; echo "$1 partition 1 0 -2" >> $ROOT/proc/swaps`)
})

const devices = (): readonly string[] =>
  host
    .read('/proc/swaps')
    .split('\n')
    .slice(1)
    .filter(Boolean)
    .map((line) => line.split(' ')[0] ?? '')
    .sort()

const did = (): readonly string[] => host.read('/did').split('\n').filter(Boolean)

const off = async (): Promise<string> => (await host.exec(swapIsOff)).stdout

describe('the swap of a node', () => {
  test('the swap of a node is switched off, and the units that would switch it on at boot are masked', async () => {
    expect(await off()).toBe('swap is on: /dev/zram0\nswap is on: /dev/sda2\n')
    await switchOffSwap(host, await Recorder.open(host))
    expect(did()).toEqual(['mask swap.target', 'mask zramswap.service', 'swapoff -a'])
    expect(await off()).toBe('')
  })

  test('the swap of a node comes back when the machine is given back, with its units as they were', async () => {
    await switchOffSwap(host, await Recorder.open(host))
    // The next `up` finds it switched off: what was recorded first counts.
    await switchOffSwap(host, await Recorder.open(host))
    host.write('/did', '')
    await undoRecord(host, () => undefined)
    expect(devices()).toEqual(['/dev/sda2', '/dev/zram0'])
    expect(did()).toEqual(
      expect.arrayContaining([
        'unmask swap.target',
        'start swap.target',
        'unmask zramswap.service',
        'start zramswap.service',
        'enable --quiet zramswap.service',
      ]),
    )
    expect(did().findIndex((line) => line.startsWith('swapon'))).toBeGreaterThan(
      did().indexOf('start zramswap.service'),
    )
  })

  test('missing swap is no reason to fail on a machine that has none', async () => {
    host.write('/proc/swaps', header)
    host.write('/units', 'swap.target static active\n')
    await switchOffSwap(host, await Recorder.open(host))
    await undoRecord(host, () => undefined)
    expect(devices()).toEqual([])
  })
})
