/**
 * CHAP with a real target: every name and password that a lab file may have can log in, and those that it may not have
 * cannot. Each case is an access list at the target, and a login under that list's name.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { parseLab } from '../../src/registry.js'
import { LabFileError } from '../../src/lab/parse.js'
import { quote } from '../../src/machine/sh.js'
import { Bench } from './lab.js'

const bench = new Bench()
const iqn = 'iqn.2016-04.world.srv:target00'
const portal = '192.168.56.70:3260'

interface Case {
  readonly username: string
  readonly password: string
  readonly mutual?: { readonly username: string; readonly password: string }
}

/** The problem that `lab validate` finds; undefined: none. */
const refusal = (chap: Case): string | undefined => {
  const file = {
    apiVersion: 'lab/v1',
    name: 'chap',
    machines: [{ name: 'target', role: 'target', address: '192.168.56.70', memory: '512MiB' }],
    iscsi: { targets: [{ machine: 'target', iqn, chap, luns: [{ lun: 0, size: '64MiB' }] }] },
  }
  try {
    parseLab(stringify(file), 'chap.yaml')
    return undefined
  } catch (error) {
    if (error instanceof LabFileError) return error.message
    throw error
  }
}

/** Writes a script to a machine and runs it there: it would be too long for an argument. */
const runOn = async (machine: string, script: string, ...shell: readonly string[]): Promise<string> => {
  const file = join(bench.folder, 'script')
  await writeFile(file, script)
  await bench.ok('cp', 'iscsi', file, `${machine}:/root/script`)
  return bench.ok('exec', 'iscsi', machine, '--', ...shell, 'sh', '/root/script')
}

/** The cases that can log in. */
const tried = async (cases: readonly Case[]): Promise<readonly boolean[]> => {
  const list = (index: number): string => `iqn.2016-04.world.srv:case-${String(index)}`
  await runOn(
    'target',
    [
      `cd /sys/kernel/config/target/iscsi/${iqn}/tpgt_1/acls`,
      ...cases.flatMap(({ username, password, mutual }, index) => [
        `mkdir ${list(index)} && cd ${list(index)} && mkdir lun_0 && ln -sT "$PWD"/../../lun/lun_0 lun_0/lun`,
        `printf %s ${quote(username)} > auth/userid; printf %s ${quote(password)} > auth/password`,
        mutual
          ? `printf %s ${quote(mutual.username)} > auth/userid_mutual; printf %s ${quote(mutual.password)} > auth/password_mutual`
          : '',
        'cd ..',
      ]),
      'true',
    ].join('\n'),
  )
  const said = await runOn(
    'initiator',
    [
      'mount -t tmpfs none /var/lib/iscsi; mkdir -p /var/lib/iscsi/nodes /var/lib/iscsi/ifaces',
      ...cases.flatMap(({ username, password, mutual }, index) => {
        const face = `case${String(index)}`
        const node = `-m node -T ${iqn} -p ${portal} -I ${face}`
        const lines = [
          `node.session.auth.authmethod = CHAP`,
          `node.session.auth.username = ${username}`,
          `node.session.auth.password = ${password}`,
          ...(mutual
            ? [
                `node.session.auth.username_in = ${mutual.username}`,
                `node.session.auth.password_in = ${mutual.password}`,
              ]
            : []),
          'node.session.scan = manual',
          'node.session.initial_login_retry_max = 1',
          '# END RECORD',
        ]
        return [
          `iscsiadm -m iface -I ${face} -o new; iscsiadm -m iface -I ${face} -o update -n iface.initiatorname -v ${list(index)}`,
          `iscsiadm ${node} -o new; file=$(find /var/lib/iscsi/nodes -type f)`,
          `grep -v -e ^node.session.auth.authmethod -e ^node.session.auth.username -e ^node.session.auth.password -e ^node.session.scan -e ^node.session.initial -e '# END' $file > $file.new`,
          `printf '%s\\n' ${lines.map(quote).join(' ')} >> $file.new; mv $file.new $file`,
          `if iscsiadm ${node} --login; then echo yes ${String(index)} >&3; iscsiadm ${node} --logout; fi; rm -rf /var/lib/iscsi/nodes/*`,
        ]
      }),
      'true',
    ]
      .join('\n')
      .replace(/^/, 'exec 3>&1 >/dev/null 2>&1\n'),
    'unshare',
    '--mount',
  )
  const lists = cases.map((_, index) => list(index)).join(' ')
  await runOn(
    'target',
    `cd /sys/kernel/config/target/iscsi/${iqn}/tpgt_1/acls; for list in ${lists}; do rm $list/lun_0/lun; rmdir $list/lun_0 $list; done`,
  )
  return cases.map((_, index) => said.split('\n').includes(`yes ${String(index)}`))
}

/** Texts of characters that have a meaning somewhere on the way, more often than letters. */
const word = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ...Array.from(';,=#"\'\\$`%&|*?!~<>()[]{}:/ -'),
        ...[
          '0x',
          '0b',
          'NULL',
          'CHAP_',
          'CHAP_N=',
          'CHAP_R',
          'None',
          '<empty>',
          '{{x}}',
          'ü',
          '江',
          '🔑',
          '\u00a0',
        ],
      ),
      fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 12 }),
    ),
    { minLength: 1, maxLength: 8 },
  )
  .map((parts) => parts.join(''))

const credentials = fc.record({ username: word, password: word })
const chap = fc
  .record({ own: credentials, mutual: fc.option(credentials, { nil: undefined }) })
  .map(({ own, mutual }): Case => ({ ...own, ...(mutual ? { mutual } : {}) }))

describe('CHAP at a real target', () => {
  beforeAll(async () => {
    await bench.up('iscsi')
  })

  afterAll(() => bench.close())

  it('a real target accepts every CHAP name and password that a lab file may have', async () => {
    const seed = Number(process.env['LAB_SEED'] ?? 14)
    const cases = [
      ...fc.sample(
        chap.filter((one) => refusal(one) === undefined),
        { numRuns: 100, seed },
      ),
      { username: 'u'.repeat(255), password: 'p'.repeat(255) },
      { username: 'あ'.repeat(85), password: 'い'.repeat(85), mutual: { username: 'x', password: '0xcafe' } },
      { username: '#', password: '# END RECORD', mutual: { username: 'a;b', password: ';' } },
    ]
    const entered = await tried(cases)
    expect(cases.filter((_, index) => !entered[index])).toEqual([])
  })

  it('a real target rejects even the right CHAP name and password in every case in which a lab file is refused for them', async () => {
    const cases: readonly Case[] = [
      ...[
        'a;b',
        '0xcafe',
        '0Xcafe',
        '0b01user',
        '0B01',
        'NULLx',
        'NULL',
        'xCHAP_R=0x1',
        ' padded',
        'padded ',
      ].map((username) => ({ username, password: 'secretsecret12' })),
      ...['NULLpointer42', 'NULL', ' padded', 'padded '].map((password) => ({ username: 'user', password })),
      ...['CHAP_I', 'CHAP_I=3', 'xCHAP_C=0x00'].map((username) => ({
        username,
        password: 'secretsecret12',
        mutual: { username: 'm', password: 'other' },
      })),
      { username: 'user', password: 'same', mutual: { username: 'm', password: 'same' } },
      { username: 'user', password: 'own', mutual: { username: 'NULLx', password: 'other' } },
      { username: 'user', password: 'own', mutual: { username: 'm', password: 'NULLx' } },
    ]
    expect(cases.filter((one) => refusal(one) === undefined)).toEqual([])
    const entered = await tried(cases)
    expect(cases.filter((_, index) => entered[index])).toEqual([])
  })
})
