import { describe, expect, test } from 'vitest'
import {
  addressText,
  hostNumber,
  isPrivate,
  nthRange,
  overlaps,
  parseAddress,
  parseSubnet,
  subnetText,
} from '../../src/lab/address.js'
import type { Subnet } from '../../src/lab/address.js'

const subnet = (text: string): Subnet => {
  const parsed = parseSubnet(text)
  if (!parsed) throw new Error(`${text} is no subnet`)
  return parsed
}

describe('IPv4 addresses', () => {
  test.each(['0.0.0.0', '10.0.0.1', '192.168.56.255', '255.255.255.255'])(
    '%s is unchanged after parsing and formatting',
    (text) => {
      expect(addressText(parseAddress(text) ?? -1)).toBe(text)
    },
  )

  test.each([
    '',
    '10.1',
    '10.0.0.256',
    '010.0.0.1',
    '1.2.3.4.5',
    '::1',
    ' 10.0.0.1',
    '10.0.0.1\n',
    '0x0a.0.0.1',
  ])('%j is not an address', (text) => {
    expect(parseAddress(text)).toBeUndefined()
  })
})

describe('subnets', () => {
  test.each([
    ['192.168.56.7/24', '192.168.56.0/24'],
    ['255.255.255.255/8', '255.0.0.0/8'],
    ['10.1.2.3/32', '10.1.2.3/32'],
    ['10.1.2.3/0', '0.0.0.0/0'],
  ])('the address %s lies in %s', (text, canonical) => {
    expect(subnetText(subnet(text))).toBe(canonical)
  })

  test.each(['10.0.0.0', '10.0.0.0/33', '10.0.0.0/08', '10.0.0/8', '/8', '10.0.0.0/', '10.0.0.0/8 '])(
    '%j is not a subnet',
    (text) => {
      expect(parseSubnet(text)).toBeUndefined()
    },
  )

  test.each([
    ['10.0.0.0/8', '10.255.255.0/24', true],
    ['10.255.255.0/24', '10.0.0.0/8', true],
    ['10.0.0.0/24', '10.0.1.0/24', false],
    ['192.168.0.0/17', '192.168.128.0/17', false],
    ['192.168.0.0/16', '192.168.0.0/16', true],
  ])('the overlap of %s and %s is detected: %s', (a, b, expected) => {
    expect(overlaps(subnet(a), subnet(b))).toBe(expected)
  })

  test.each([
    ['10.0.0.0/8', true],
    ['172.16.0.0/12', true],
    ['172.31.255.0/24', true],
    ['172.32.0.0/24', false],
    ['192.168.0.0/15', false],
    ['8.0.0.0/6', false],
    ['192.169.0.0/24', false],
  ])('%s counts as private: %s', (text, expected) => {
    expect(isPrivate(subnet(text))).toBe(expected)
  })

  test('host numbers become addresses of the subnet', () => {
    expect(hostNumber(subnet('192.168.56.0/24'), parseAddress('192.168.56.21') ?? -1)).toBe(21)
    expect(hostNumber(subnet('172.20.0.0/16'), parseAddress('172.20.1.0') ?? -1)).toBe(256)
    expect(hostNumber(subnet('192.168.56.0/24'), parseAddress('192.168.57.0') ?? -1)).toBeUndefined()
    expect(hostNumber(subnet('192.168.56.0/24'), -1)).toBeUndefined()
  })

  test('a subnet is divided into ranges of /24', () => {
    const range = (text: string, n: number): string | undefined => {
      const found = nthRange(subnet(text), n)
      return found && subnetText(found)
    }
    expect(range('10.244.0.0/16', 21)).toBe('10.244.21.0/24')
    expect(range('10.244.0.0/16', 255)).toBe('10.244.255.0/24')
    expect(range('10.244.0.0/16', 256)).toBeUndefined()
    expect(range('10.244.0.0/24', 0)).toBe('10.244.0.0/24')
    expect(range('10.244.0.0/25', 0)).toBeUndefined()
  })
})
