/** The bridge of a lab's network, with a program `ip` that only notes what it is asked. */
import { execFileSync } from 'node:child_process'
import { expect, test, vi } from 'vitest'
import { macAt, makeBridge } from '../../../src/provider/uml/bridge.js'

vi.mock('node:child_process', () => ({ execFileSync: vi.fn() }))

test("the bridge has a hardware address of its own, which does not change with the machines' cables", () => {
  makeBridge('192.168.56.1/24')
  const asked = vi
    .mocked(execFileSync)
    .mock.calls.map(([program, args]) => [program, ...(args ?? [])].join(' '))
  expect(asked.find((command) => command.startsWith('ip link add lab0 '))).toContain(
    ' address 02:4c:c0:a8:38:01 type bridge',
  )
})

test('every address of a network has another hardware address', () => {
  expect(macAt('192.168.56.21')).toBe('02:4c:c0:a8:38:15')
  expect(macAt('192.168.56.1')).not.toBe(macAt('192.168.56.10'))
})
