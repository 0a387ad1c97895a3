import { X509Certificate } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { execa } from 'execa'
import { beforeEach, expect, test, vi } from 'vitest'
import { certificateFor } from '../../src/class/certificate.js'
import { classPaths } from '../../src/class/class.js'
import { temporaryFolder } from '../helpers/folder.js'

const address = '192.0.2.1'

beforeEach(async () => {
  vi.stubEnv('LAB_CLASSES', await temporaryFolder())
  await mkdir(dirname(classPaths('iscsi').certificate), { recursive: true })
})

/** A certificate for the address, by lab itself or by a teacher. */
const write = async (name: string, days: number): Promise<string> => {
  const { key, certificate } = classPaths('iscsi')
  const { stdout } = await execa('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-days', String(days), '-subj', `/CN=${name}`, '-addext', `subjectAltName=IP:${address}`],
    ...['-keyout', key, '-out', certificate],
  ]).then(() => execa('openssl', ['x509', '-in', certificate]))
  return new X509Certificate(stdout).fingerprint256
}

test.each([
  ['of lab that ends in a day is renewed', 'lab class', 1, false] as const,
  ['of lab that lasts for a month is kept', 'lab class', 30, true] as const,
  ['of the teacher is kept although it ends in a day', 'school', 1, true] as const,
])('a certificate %s', async (_, name, days, isKept) => {
  const before = await write(name, days)
  const { fingerprint, cert } = await certificateFor('iscsi', address)
  expect(fingerprint === before).toBe(isKept)
  expect(new X509Certificate(cert).checkIP(address)).toBe(address)
})

test('a certificate that cannot be read, and the key of another one, are named with what to type', async () => {
  const { key, certificate } = classPaths('iscsi')
  const hint = `rm ${key} ${certificate}: then the class gets a new certificate`
  await write('lab class', 30)
  await writeFile(certificate, '')
  await expect(certificateFor('iscsi', address)).rejects.toMatchObject({ code: 'bad-certificate', hint })
  await write('lab class', 30)
  await execa('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', key])
  await expect(certificateFor('iscsi', address)).rejects.toMatchObject({
    code: 'bad-certificate',
    message: `${key} is not the key of ${certificate}`,
    hint,
  })
})
