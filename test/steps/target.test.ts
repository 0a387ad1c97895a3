/** How the checks of a target judge the answers of a target machine. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { accessTo, discoveryChapOf, type Lab } from '../../src/lab/lab.js'
import { parseLab } from '../../src/registry.js'
import { sha256 } from '../../src/machine/digest.js'
import type { Context } from '../../src/context.js'
import type { Verdict } from '../../src/plan/step.js'
import { proveRefusal } from '../../src/steps/refused-logins.js'
import { serveTarget } from '../../src/steps/target.js'

const masking = parseLab(
  readFileSync(join(import.meta.dirname, '..', 'lab', 'valid', 'masking.yaml'), 'utf8'),
  'masking.yaml',
  { built: '1.36.3', minors: ['1.36'] },
)
const target = masking.targets[0]!
const name = (machine: string): string => `iqn.2016-04.world.srv:${machine}`

/** A machine that always gives the same answer. */
const answering = (stdout: string, exitCode = 0): Context =>
  ({
    lab: masking,
    signal: new AbortController().signal,
    machine: () => ({
      run: () => Promise.resolve(stdout),
      try: () => Promise.resolve({ exitCode, stdout, stderr: '' }),
    }),
  }) as unknown as Context

const checked = (id: string, stdout: string, lab: Lab = masking): Promise<Verdict> => {
  const check = serveTarget(lab, lab.targets[0]!).checks.find((candidate) => candidate.id === id)
  if (!check) throw new Error(`no check ${id}`)
  return check.probe(answering(stdout))
}

const listed = (...maps: readonly (readonly [machine: string, seen: number, served: number])[]): string =>
  [
    'open 0',
    'open 0',
    ...['w1', 'w2', 'c1', 'c2'].map((machine) => `acl ${name(machine)}`),
    ...maps.map(
      ([machine, seen, served]) =>
        `map ${name(machine)}/lun_${String(seen)}/lun ../../../../../../target/iscsi/${target.iqn}/tpgt_1/lun/lun_${String(served)}`,
    ),
  ].join('\n')

describe('which initiator sees which LUN', () => {
  it('an initiator sees the LUNs of the database, of its file systems, and those that name it', () => {
    expect(accessTo(masking, target).map(({ initiator, luns }) => [initiator.name, luns])).toEqual([
      ['w1', [0, 2]],
      ['w2', [0, 2]],
      ['c1', [1, 3]],
      ['c2', [3]],
    ])
  })

  it('the check passes when an initiator has exactly its LUNs', async () => {
    expect(await checked('target00-acl-w1', listed(['w1', 2, 2], ['w1', 0, 0]))).toEqual({
      ok: true,
      saw: 'LUNs 0, 2',
    })
  })

  it.each([
    ['one too many', listed(['w1', 0, 0], ['w1', 2, 2], ['w1', 1, 1]), 'LUNs 0, 1, 2'],
    ['one too few', listed(['w1', 0, 0]), 'LUN 0'],
    ['another under its number', listed(['w1', 0, 1], ['w1', 2, 2]), 'LUNs 0 (LUN 1 of the target), 2'],
    ['none', listed(), 'no LUN'],
    [
      'one that it may only read',
      `${listed(['w1', 0, 0], ['w1', 2, 2])}\nread-only acls/${name('w1')}/lun_0/write_protect`,
      'LUNs 0 (read-only), 2',
    ],
  ])('the check fails when an initiator has %s, and says what it has', async (_, output, saw) => {
    expect(await checked('target00-acl-w1', output)).toEqual({ ok: false, saw })
  })

  it('the check says that an initiator is fenced and what to type, rather than that its list is missing', async () => {
    const output = `${listed().replace(`acl ${name('w1')}\n`, '')}\nfenced ${name('w1')}`
    expect(await checked('target00-acl-w1', output)).toEqual({
      ok: false,
      saw: 'fenced; lab heal masking gives it access again',
    })
    const { ok, saw } = await checked('target00-acl', output)
    expect(ok).toBe(false)
    expect(saw).toContain(`fenced: ${name('w1')}`)
    expect(saw).not.toContain('missing')
  })

  it('the check fails when a fenced initiator is on the access list', async () => {
    const { ok, saw } = await checked('target00-acl-w1', `${listed(['w1', 0, 0])}\nfenced ${name('w1')}`)
    expect(ok).toBe(false)
    expect(saw).toContain('still on the list')
  })

  it.each([
    ['every initiator may log in', listed().replace('open 0', 'open 1'), 'every initiator may'],
    ['a stranger is on the list', `${listed()}\nacl ${name('idle')}`, `left over: ${name('idle')}`],
    [
      'an initiator is missing from it',
      listed().replace(`acl ${name('w2')}\n`, ''),
      `missing: ${name('w2')}`,
    ],
  ])('the check fails when %s', async (_, output, word) => {
    const { ok, saw } = await checked('target00-acl', output)
    expect(ok).toBe(false)
    expect(saw).toContain(word)
  })
})

describe('a target to which no initiator logs in', () => {
  const alone: Lab = {
    ...masking,
    machines: masking.machines.filter(({ role }) => role === 'target'),
    filesystems: [],
    kubernetes: undefined,
    database: undefined,
    targets: [{ ...target, luns: [{ lun: 0, size: 64 * 1024 ** 2 }] }],
  }

  it('the check passes without an access list, and tries nothing that needs an initiator', async () => {
    expect(await checked('target00-acl', 'open 0\nopen 0', alone)).toEqual({ ok: true, saw: 'no initiator' })
    expect((await checked('target00-chap', '1', alone)).ok).toBe(true)
    expect(proveRefusal(alone, alone.targets[0]!)).toBeUndefined()
  })

  it('the check still fails when the target does not demand CHAP', async () => {
    expect((await checked('target00-chap', '0', alone)).ok).toBe(false)
  })
})

describe('CHAP', () => {
  const hashes = (...values: readonly string[]): string =>
    values.map((value) => sha256(`${value}\n`)).join('\n')
  const own = hashes('username', 'password', 'a;b', '0xcafe')
  const mutual = hashes('1')

  it('the check passes only when every list has both names and both passwords, as the kernel shows them', async () => {
    expect((await checked('target00-chap', `1\n${mutual}\n${own}\n${mutual}\n${own}`)).ok).toBe(true)
    for (const output of [
      `0\n${mutual}\n${own}`,
      `1\n${hashes('0')}\n${own}`,
      `1\n${mutual}\n${hashes('username', 'password', 'a;b', 'other')}`,
      `1\n${mutual}\n${hashes('password', 'username', 'a;b', '0xcafe')}`,
      `1\n${mutual}\n${own}\n${mutual}\n${hashes('username', 'password\n', 'a;b', '0xcafe')}`,
      `1\n${mutual}\n${hashes('username', 'password')}`,
    ])
      expect((await checked('target00-chap', output)).ok, output).toBe(false)
  })

  it('discovery on a machine demands the CHAP secret of its first target', async () => {
    expect(discoveryChapOf(masking, 'target').username).toBe('username')
    expect((await checked('target-discovery', `1\n1\n${own}`)).ok).toBe(true)
    expect((await checked('target-discovery', `0\n1\n${own}`)).ok).toBe(false)
    expect((await checked('target-discovery', `1\n0\n${own}`)).ok).toBe(false)
    expect((await checked('target-discovery', `1\n1\n${hashes('x', 'password', 'a;b', '0xcafe')}`)).ok).toBe(
      false,
    )
  })

  it('CHAP is proven by rejected logins, each with its own exit code', async () => {
    const step = proveRefusal(masking, target)
    const ids = step?.checks.map(({ id }) => id.replace('target00-refuses-', ''))
    expect(ids).toEqual([
      'discovery-with-wrong-password',
      'discovery-with-no-password',
      'wrong-mutual-discovery',
      'wrong-password',
      'no-password',
      'wrong-mutual-password',
    ])
    for (const check of step?.checks ?? []) {
      const wanted = check.id.includes('mutual') ? 19 : 24
      for (const exitCode of [0, 8, 19, 20, 24])
        expect((await check.probe(answering('', exitCode))).ok, `${check.id} ${String(exitCode)}`).toBe(
          exitCode === wanted,
        )
    }
  })
})
