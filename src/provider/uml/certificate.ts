/**
 * A self-signed certificate for a service of one lab. Node can sign, but cannot write certificates: they are a few
 * nested lists of X.690 (DER), as defined in RFC 5280.
 */
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'

/** From RFC 5280 and RFC 5758, each in DER. */
const oids = {
  ecdsaWithSha256: '06082a8648ce3d040302',
  commonName: '0603550403',
  subjectAltName: '0603551d11',
  basicConstraints: '0603551d13',
} as const

const tags = {
  integer: 0x02,
  bits: 0x03,
  octets: 0x04,
  utf8: 0x0c,
  utcTime: 0x17,
  list: 0x30,
  set: 0x31,
} as const

/** One value: its tag, its length and its content. */
const der = (tag: number, ...content: readonly Buffer[]): Buffer => {
  const body = Buffer.concat(content)
  const digits = body.length.toString(16)
  const length =
    body.length < 0x80
      ? Buffer.from([body.length])
      : Buffer.concat([
          Buffer.from([0x80 + Math.ceil(digits.length / 2)]),
          Buffer.from(digits.padStart(digits.length + (digits.length % 2), '0'), 'hex'),
        ])
  return Buffer.concat([Buffer.from([tag]), length, body])
}

const list = (...content: readonly Buffer[]): Buffer => der(tags.list, ...content)
const oid = (name: keyof typeof oids): Buffer => Buffer.from(oids[name], 'hex')
/** A field of a list that is identified by its number. */
const numbered = (number: number, ...content: readonly Buffer[]): Buffer => der(0xa0 + number, ...content)

/** Valid until 2049, which is as far as a year of two digits goes. */
const utcTime = (date: Date): Buffer =>
  der(
    tags.utcTime,
    Buffer.from(
      date
        .toISOString()
        .replace(/[-:T]|\.\d+/g, '')
        .slice(2),
    ),
  )

const named = (name: string): Buffer =>
  list(der(tags.set, list(oid('commonName'), der(tags.utf8, Buffer.from(name)))))

const day = 86_400_000

export interface Identity {
  /** PEM. */
  readonly key: string
  readonly certificate: string
}

/**
 * A new key and a certificate for it, valid from yesterday, because clocks of labs are set wrong on purpose, and for
 * 20 years.
 * @param name its common name
 * @param address the IPv4 address of its owner
 */
export const selfSigned = (name: string, address: string, now = Date.now()): Identity => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const algorithm = list(oid('ecdsaWithSha256'))
  const extensions = list(
    list(oid('basicConstraints'), der(tags.octets, list(Buffer.from([0x01, 0x01, 0xff])))),
    // 7: an IP address, by RFC 5280.
    list(
      oid('subjectAltName'),
      der(tags.octets, list(der(0x87, Buffer.from(address.split('.').map(Number))))),
    ),
  )
  const serial = randomBytes(8)
  // Positive, and without a leading zero.
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40
  const body = list(
    numbered(0, der(tags.integer, Buffer.from([2]))),
    der(tags.integer, serial),
    algorithm,
    named(name),
    list(utcTime(new Date(now - day)), utcTime(new Date(now + 20 * 365 * day))),
    named(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    numbered(3, extensions),
  )
  const signature = sign('sha256', body, privateKey)
  const certificate = list(body, algorithm, der(tags.bits, Buffer.from([0]), signature))
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? []
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificate: ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n'),
  }
}
