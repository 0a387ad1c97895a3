/** The gateway's certificate: self-signed, unless the teacher provides one that browsers trust. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { execa } from 'execa'
import { exitCodes, LabError } from '../error.js'
import { readIfThere } from '../state.js'
import { classPaths } from './class.js'

export interface Certificate {
  readonly key: string
  readonly cert: string
  /** SHA-256, as browsers show it: `AB:CD:…`. */
  readonly fingerprint: string
}

/** As browsers show it: `AB:CD:…`. */
export const fingerprintOf = (certificate: string): string => new X509Certificate(certificate).fingerprint256

/** The common name of a certificate that lab made. */
const ownName = 'lab class'

/** Milliseconds: longer than any class lasts. */
const margin = 7 * 86_400_000

const endsSoon = ({ validTo }: X509Certificate): boolean => Date.parse(validTo) - Date.now() < margin

/** It may be the teacher's own, so a damaged one is not replaced unasked. */
const kept = async (lab: string): Promise<Certificate | undefined> => {
  const paths = classPaths(lab)
  const [key, cert] = [await readIfThere(paths.key), await readIfThere(paths.certificate)]
  if (key === undefined || cert === undefined) return undefined
  const damaged = (what: string, cause?: unknown): LabError =>
    new LabError('bad-certificate', what, {
      hint: `rm ${paths.key} ${paths.certificate}: then the class gets a new certificate`,
      exitCode: exitCodes.host,
      cause,
    })
  try {
    const x509 = new X509Certificate(cert)
    if (x509.checkPrivateKey(createPrivateKey(key))) return { key, cert, fingerprint: x509.fingerprint256 }
  } catch (error) {
    throw damaged(`${paths.certificate} and its key cannot be read`, error)
  }
  throw damaged(`${paths.key} is not the key of ${paths.certificate}`)
}

/**
 * The certificate for an address; openssl makes one if there is none yet. It is self-signed, so browsers warn once.
 * @throws LabError `no-certificate`
 */
export const certificateFor = async (lab: string, address: string): Promise<Certificate> => {
  const before = await kept(lab)
  const name = isIP(address) ? `IP:${address}` : `DNS:${address}`
  if (before) {
    const x509 = new X509Certificate(before.cert)
    const fits = isIP(address) ? x509.checkIP(address) : x509.checkHost(address)
    const isOurs = x509.issuer === `CN=${ownName}`
    if (fits !== undefined && !(isOurs && endsSoon(x509))) return before
  }
  const paths = classPaths(lab)
  const made = await execa(
    'openssl',
    [
      ...[
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '90',
      ],
      ...['-subj', `/CN=${ownName}`, '-addext', `subjectAltName=${name},IP:127.0.0.1`],
      ...['-addext', 'extendedKeyUsage=serverAuth', '-keyout', paths.key, '-out', paths.certificate],
    ],
    { reject: false, stdin: 'ignore' },
  )
  const now = made.failed ? undefined : await kept(lab)
  if (!now)
    throw new LabError(
      'no-certificate',
      `openssl could not make a certificate for ${address}: ${(made.stderr || (made.shortMessage ?? '')).trim().split('\n').at(-1) ?? ''}`,
      {
        hint: 'apt-get install -y openssl',
        exitCode: exitCodes.host,
      },
    )
  return now
}
