import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { expandLogins, hostsText, loadHosts, parseHosts, pinHostKeys } from '../../src/lab/hosts-file.js'
import { temporaryFolder } from '../helpers/folder.js'

const key = `ssh-ed25519 ${'A'.repeat(68)}`
const file = (hosts: string, more = ''): string => `apiVersion: lab.hosts/v1\n${more}hosts:\n${hosts}`

const messageOf = (text: string): string => {
  try {
    parseHosts(text, 'hosts.yaml')
  } catch (error) {
    return (error as Error).message
  }
  return 'no error'
}

describe('a hosts.yaml', () => {
  test('a hosts.yaml gives each host the defaults, unless the host has its own settings', () => {
    const { hosts, jumpHosts } = parseHosts(
      file(
        `  one: { address: 10.0.0.11 }\n  two: { address: two.local, port: 2222, user: root, key: /k, via: bastion, interface: eth0 }\n`,
        `defaults: { user: pi, password: $PI }\njumpHosts: { bastion: { address: 10.0.0.1, hostKey: '${key}' } }\n`,
      ),
      'hosts.yaml',
    )
    expect(hosts).toEqual([
      {
        ...{ name: 'one', address: '10.0.0.11', port: 22, user: 'pi', key: undefined, hostKey: undefined },
        ...{ password: { from: 'variable', name: 'PI' }, sudoPassword: undefined },
        ...{ via: undefined, interface: undefined },
      },
      {
        ...{ name: 'two', address: 'two.local', port: 2222, user: 'root', key: '/k', hostKey: undefined },
        ...{ password: undefined, sudoPassword: undefined, via: 'bastion', interface: 'eth0' },
      },
    ])
    expect(jumpHosts).toMatchObject([{ name: 'bastion', user: 'pi', hostKey: key }])
  })

  test('a hosts.yaml asks once for a password that all hosts share', () => {
    const { hosts } = parseHosts(
      file(
        '  one: { address: 10.0.0.11 }\n  two: { address: 10.0.0.12 }\n',
        'defaults: { user: pi, password: ask }\n',
      ),
      'hosts.yaml',
    )
    expect(hosts[0]?.password).toEqual({ from: 'terminal' })
    expect(hosts[1]?.password).toBe(hosts[0]?.password)
  })

  test.each([
    [
      'a host twice',
      file('  one: { address: 10.0.0.11, user: pi }\n  two: { address: 10.0.0.11, user: pi }\n'),
      'hosts.yaml:4:19  hosts.two.address: 10.0.0.11:22 is already one; one host can be only one machine, because both would have its name and its ports',
    ],
    [
      'a host without a user',
      file('  one: { address: 10.0.0.11 }\n'),
      'hosts.yaml:3:8  hosts.one: has no user; set user, here or in defaults',
    ],
    [
      'a password in the file, which is not repeated',
      file('  one: { address: 10.0.0.11, user: pi, password: hunter22 }\n'),
      'hosts.yaml:3:50  hosts.one.password: a password does not belong in this file; write `ask`, or the name of an environment variable with a leading `$`, such as $PI_PASSWORD',
    ],
    [
      'a password of digits, which is not repeated either',
      file('  one: { address: 10.0.0.11, user: pi, password: 12345678 }\n'),
      'hosts.yaml:3:50  hosts.one.password: 12345678 is a number; expected',
    ],
    [
      'an unknown jump host',
      file('  one: { address: 10.0.0.11, user: pi, via: gate }\n'),
      'hosts.yaml:3:45  hosts.one.via: "gate" is not in jumpHosts',
    ],
    [
      'a mistyped field',
      file('  one: { adress: 10.0.0.11, user: pi }\n'),
      'hosts.yaml:3:10  hosts.one.adress: unknown field; did you mean address?',
    ],
    [
      'an invalid address',
      file('  one: { address: 10.0.0.256, user: pi }\n'),
      'hosts.yaml:3:19  hosts.one.address: "10.0.0.256": expected four numbers up to 255, such as 10.0.0.11',
    ],
    [
      'an invalid host key',
      file('  one: { address: 10.0.0.11, user: pi, hostKey: AAAA }\n'),
      'hosts.yaml:3:49  hosts.one.hostKey: expected the kind and the key',
    ],
    [
      'a name that no machine can have',
      file('  One_Pi: { address: 10.0.0.11, user: pi }\n'),
      'hosts.yaml:3:3  hosts.One_Pi: the name of a machine: ',
    ],
    [
      'another kind of file',
      'apiVersion: lab/v1\nhosts: {}\n',
      'hosts.yaml:1:13  apiVersion: "lab/v1": expected lab.hosts/v1',
    ],
    ['no host at all', file('  {}\n'), 'hosts.yaml:3:3  hosts: is empty; expected at least one host'],
    ['nothing', '', 'hosts.yaml  is empty; lab hosts init USER@ADDRESS… writes such a file'],
    ['a file that is not YAML', 'hosts: [', 'hosts.yaml:1:'],
  ])('a hosts.yaml is refused with a place and a reason for %s', (_, text, message) => {
    expect(messageOf(text)).toContain(message)
    expect(messageOf(text)).not.toMatch(/hunter22/)
  })

  test('a hosts.yaml that does not exist is refused with the command that writes one', () => {
    expect(() => loadHosts('/nowhere/hosts.yaml')).toThrow('/nowhere/hosts.yaml  there is no such file')
  })

  test('a hosts.yaml that is a directory is refused in words', () => {
    expect(() => loadHosts('/proc')).toThrow('/proc  is a directory; expected a hosts.yaml')
  })

  test('a hosts.yaml gets the host keys that were checked, and keeps its comments', async () => {
    const path = join(await temporaryFolder(), 'hosts.yaml')
    writeFileSync(path, file('  # on the shelf\n  one: { address: 10.0.0.11, user: pi }\n'))
    pinHostKeys(path, new Map([['one', key]]))
    expect(loadHosts(path).hosts[0]?.hostKey).toBe(key)
    expect(readFileSync(path, 'utf8')).toContain('# on the shelf')
  })
})

describe('lab hosts init', () => {
  test('lab hosts init accepts a range for the last number of an address', () => {
    expect(expandLogins('pi@10.0.0.[11-13]').map(({ address }) => address)).toEqual([
      '10.0.0.11',
      '10.0.0.12',
      '10.0.0.13',
    ])
    expect(expandLogins('root@pi1.local')).toEqual([{ user: 'root', address: 'pi1.local' }])
  })

  test.each(['10.0.0.11', 'pi@10.0.0.[14-11]', 'pi@10.0.0.[250-260]', 'pi@a b'])(
    'lab hosts init refuses %s',
    (word) => {
      expect(() => expandLogins(word)).toThrow(/expected|empty/)
    },
  )

  test('lab hosts init writes a file that reads back', () => {
    const text = hostsText(
      expandLogins('pi@10.0.0.[11-12]').map((login, index) => ({ ...login, name: `node${String(index)}` })),
    )
    expect(
      parseHosts(text, 'hosts.yaml').hosts.map(({ name, user, address }) => [name, user, address]),
    ).toEqual([
      ['node0', 'pi', '10.0.0.11'],
      ['node1', 'pi', '10.0.0.12'],
    ])
  })
})
