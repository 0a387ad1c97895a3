/** What names resolve to, and which volume a claim has: a name that came back does not prove either. */
import { describe, expect, test } from 'vitest'
import { addressesIn, recordsLeadTo, targetsIn } from '../../src/course/dns.js'
import { boundClaims, sameVolumes, type VolumeClaim } from '../../src/course/volumes.js'

const service = 'nginx.lab-identity.svc.cluster.local'
const server = 'Server:\t\t10.96.0.10\nAddress:\t10.96.0.10:53\n\n'
const srvOf = (...names: readonly string[]): string =>
  `${server}${names.map((name) => `${service}\tservice = 0 50 80 ${name}.${service}`).join('\n')}\n\n`
const aOf = (name: string, ...addresses: readonly string[]): string =>
  `${server}${addresses.map((address) => `Name:\t${name}.${service}\nAddress: ${address}`).join('\n')}\n\n`

const members = [
  { name: 'web-0', address: '10.244.21.5' },
  { name: 'web-1', address: '10.244.22.6' },
]
const answers = new Map(members.map(({ name, address }) => [name, aOf(name, address)]))

describe('records of a headless Service', () => {
  test('the records of a headless Service resolve to its pods from inside another pod', () => {
    expect(recordsLeadTo(service, members, srvOf('web-1', 'web-0'), answers)).toEqual({
      ok: true,
      saw: `SRV: web-0.${service}, web-1.${service}; A: web-0 10.244.21.5, web-1 10.244.22.6`,
    })
  })

  test.each([
    ['has no SRV records', srvOf(), answers],
    ['leads to only one of two', srvOf('web-0'), answers],
    ['leads to a third as well', srvOf('web-0', 'web-1', 'web-2'), answers],
    ['names the same one twice', srvOf('web-0', 'web-0'), answers],
    ['has no A record for one', srvOf('web-0', 'web-1'), new Map([['web-0', aOf('web-0', '10.244.21.5')]])],
    [
      'leads to the old address of the pod',
      srvOf('web-0', 'web-1'),
      new Map(answers).set('web-1', aOf('web-1', '10.244.22.4')),
    ],
    [
      'leads to the old address as well',
      srvOf('web-0', 'web-1'),
      new Map(answers).set('web-1', aOf('web-1', '10.244.22.6', '10.244.22.4')),
    ],
    [
      'swaps both',
      srvOf('web-0', 'web-1'),
      new Map([
        ['web-0', aOf('web-0', '10.244.22.6')],
        ['web-1', aOf('web-1', '10.244.21.5')],
      ]),
    ],
  ])('the claim fails when the name server %s', (_what, srv, a) => {
    expect(recordsLeadTo(service, members, srv, a).ok).toBe(false)
  })

  test('the address of the name server does not count as an answer', () => {
    expect(addressesIn(server, `web-0.${service}`)).toEqual([])
    expect(addressesIn('Server: 10.96.0.10\nAddress: 10.96.0.10\n\n** server cannot find it', 'x')).toEqual(
      [],
    )
    expect(targetsIn(`${server}** server can't find ${service}: NXDOMAIN`, service)).toEqual([])
  })
})

const claim = (name: string, other: Partial<VolumeClaim> = {}): VolumeClaim => ({
  name,
  uid: `${name}-uid`,
  bound: true,
  volume: `pvc-${name}`,
  ...other,
})

describe('persistent volume claims', () => {
  const before = [claim('www-web-0'), claim('www-web-1')]

  test('the claims are the same ones with the same volumes', () => {
    expect(sameVolumes(before, [...before].reverse()).ok).toBe(true)
  })

  test.each([
    ['one is gone', before.slice(1), 'www-web-0 is gone'],
    [
      'one was created again under its name',
      [claim('www-web-0', { uid: 'other' }), before[1]!],
      'another claim',
    ],
    [
      'one has another volume',
      [claim('www-web-0', { volume: 'pvc-empty' }), before[1]!],
      'pvc-empty and not',
    ],
    ['one is not bound', [claim('www-web-0', { bound: false }), before[1]!], 'another claim'],
    ['there is one more', [...before, claim('www-web-2')], 'www-web-2'],
  ])('the claims count as different when %s', (_what, after, saw) => {
    expect(sameVolumes(before, after)).toMatchObject({ ok: false, saw: expect.stringContaining(saw) })
  })

  test('no claims before and after do not count as the same claims', () => {
    expect(sameVolumes([], []).ok).toBe(false)
  })

  test('exactly the expected claims are bound', () => {
    const names = ['www-web-0', 'www-web-1']
    expect(boundClaims(before, names).ok).toBe(true)
    expect(boundClaims(before.slice(1), names).ok).toBe(false)
    expect(boundClaims([...before, claim('www-web-2')], names).ok).toBe(false)
    expect(boundClaims([before[0]!, claim('www-web-1', { bound: false })], names).ok).toBe(false)
    expect(boundClaims([before[0]!, claim('www-web-1', { volume: '' })], names).ok).toBe(false)
  })
})
