/**
 * How long certificates are valid. Time is a parameter: for a host that was off for 400 days, a certificate has
 * expired.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { execa } from 'execa'
import { certificateMargin, judgeCertificates } from '../../src/steps/certificates.js'
import { bootstrapTokenManifest } from '../../src/steps/joining.js'
import { parse } from 'yaml'

const day = 86_400_000
let shown = ''
let authority = ''
const folder = mkdtempSync(join(tmpdir(), 'lab-'))
afterAll(() => {
  rmSync(folder, { recursive: true })
})

const make = async (name: string, days: number, constraint: string): Promise<string> => {
  const at = (file: string): string => join(folder, file)
  const words = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days ${String(days)} -subj /CN=${name}`
  await execa('openssl', [
    ...words.split(' '),
    ...['-addext', `basicConstraints=critical,CA:${constraint}`, '-keyout', at('key'), '-out', at('crt')],
  ])
  return readFileSync(at('crt'), 'utf8')
}

beforeAll(async () => {
  shown = `== /etc/kubernetes/pki/apiserver.crt\n${await make('kube-apiserver', 365, 'FALSE')}`
  authority = `== /etc/kubernetes/pki/ca.crt\n${await make('kubernetes', 3650, 'TRUE')}`
})

it('the check counts the days until the first certificate expires, and names it and its file', () => {
  const { ok, saw } = judgeCertificates(authority + shown, 2)
  expect(ok).toBe(true)
  expect(saw).toMatch(
    /^2 certificates; first to expire: CN=kube-apiserver of \/etc\/kubernetes\/pki\/apiserver.crt expires in 36[45] days$/,
  )
})

it.each([
  ['is good a month before it expires', 365 - certificateMargin - 1, true],
  ['is no longer good within the month before it expires', 365 - certificateMargin + 1, false],
  ['is not good once it has expired, as on a host that was off for 400 days', 400, false],
])('a certificate that is valid for a year %s', (_, days, ok) => {
  const verdict = judgeCertificates(authority + shown, 2, Date.now() + days * day)
  expect(verdict.ok).toBe(ok)
  // lab can renew it.
  expect(verdict.final).toBeUndefined()
  if (days > 365) expect(verdict.saw).toMatch(/expired 3[56] days ago$/)
})

it('lab up gives up when the certificate authority has expired, since nothing can sign new certificates', () => {
  expect(judgeCertificates(authority, 1, Date.now() + 3640 * day)).toMatchObject({ ok: false, final: true })
})

it('a missing certificate does not count as valid', () => {
  expect(judgeCertificates(shown, 2).ok).toBe(false)
  expect(judgeCertificates('', 0).ok).toBe(false)
})

it('a join token is valid for an hour and no longer', () => {
  const now = Date.parse('2026-01-01T12:00:00Z')
  expect(parse(bootstrapTokenManifest('abcdef.0123456789abcdef', now))).toMatchObject({
    metadata: { name: 'bootstrap-token-abcdef', namespace: 'kube-system' },
    type: 'bootstrap.kubernetes.io/token',
    stringData: {
      'token-id': 'abcdef',
      'token-secret': '0123456789abcdef',
      expiration: '2026-01-01T13:00:00.000Z',
    },
  })
})
