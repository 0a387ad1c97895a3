/**
 * Masks secrets in everything that is printed.
 *
 * A lab's secrets come from its lab file, and they are often ordinary words: `password`, `root`, `dev`. Masking every
 * `root` would make the output unreadable, and the gaps would reveal the secret. So there are two kinds:
 *
 * - **Distinctive**: at least 8 characters, or at least 4 that mix letters with digits or signs, or 3 with a sign that
 *   occurs in no shell and no sentence; and neither a common word nor a name with a number (`password123`, `node1`). It
 *   is masked everywhere. One with fewer than 8 characters is masked only as a word of its own, not inside a longer
 *   word.
 * - **Weak**: all others. It is masked only where the text presents it as the value of a secret: `password=…`,
 *   `"rootPassword": "…"`, `--password …`, `-p…`, `IDENTIFIED BY '…'`, `user:…@host`, `incominguser NAME …`. Elsewhere
 *   it is an ordinary word and is printed.
 *
 * Both kinds are also masked in these forms: base64 (as in `Secret` objects), JSON-escaped, shell-quoted, with doubled
 * quotes (YAML, SQL), and percent-encoded. A distinctive one is also masked inside longer base64. Each line of a secret
 * with several lines is masked separately, too, because output is often printed line by line.
 *
 * Not covered: a secret that was truncated or transformed in another way before, and a weak secret in free text.
 */

export type Mask = (text: string) => string

const shown = '***'

const commonWords = new Set(
  (
    'access account admin administrator alpine auth changeme chap cluster config container control controller ' +
    'daemon data database debian debug default demo deploy dev development disabled disk docker domain enabled ' +
    'error example failed false filesystem guest ha hello host initiator internal iscsi kernel key kubectl kubelet ' +
    'kubernetes lab letmein linux local localhost login machine manager mariadb master memory multipath mysql ' +
    'name network node none null open operator pass passphrase password passwd permission persistent plane pod ' +
    'portal postgres private prod production public qwerty ready root running secret secure server service ' +
    'session standard storage started stopped success system target test testing token true ubuntu unknown user ' +
    'username vagrant virtual volume waiting welcome worker workload'
  ).split(' '),
)

/**
 * `password123` and `control-plane` are common. With more than four digits and signs, a word is no longer guessable.
 */
const isCommon = (secret: string): boolean => {
  const words = secret
    .toLowerCase()
    .split(/[^a-z]+/)
    .filter(Boolean)
  const others = secret.length - words.join('').length
  return words.length > 0 && others <= 4 && words.every((word) => commonWords.has(word))
}

/** Whether it is probably a word or a name (`abcd`, `eth0`), though it is not in the list of common words. */
const isLikeName = (secret: string): boolean => /^[a-z]+[-_.]?\d{0,3}$/i.test(secret)

const isDistinctive = (secret: string): boolean =>
  !isCommon(secret) &&
  (secret.length >= 8 ||
    (secret.length >= 4 && /[^\d.:,/\s-]/.test(secret) && !isLikeName(secret)) ||
    (secret.length === 3 && /[a-z0-9]/i.test(secret) && /[^\x20-\x7e]|[!#$%&*;<>?@\\^`{|}~]/.test(secret)))

const literal = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')

const alone = (pattern: string): string => `(?<![A-Za-z0-9])${pattern}(?![A-Za-z0-9])`

/** A base64 word may lack its `=`. Another letter on either side would make it a different word. */
const base64Word = (text: string): string =>
  `(?<![A-Za-z0-9+/])${literal(Buffer.from(text).toString('base64').replace(/=+$/, ''))}(?![A-Za-z0-9+/])={0,2}`

/**
 * The possible forms of a secret inside longer base64, where it may start at any of three positions in a group of
 * characters. Characters that also depend on the secret's neighbours are left out.
 */
const insideBase64 = (secret: string): string[] =>
  [0, 1, 2].flatMap((shift) => {
    const bytes = Buffer.concat([Buffer.alloc(shift), Buffer.from(secret)])
    const from = Math.ceil((shift * 8) / 6)
    const to = Math.floor((bytes.length * 8) / 6)
    const core = bytes.toString('base64').slice(from, to)
    return core.length < 8 ? [] : [core, core.replaceAll('+', '-').replaceAll('/', '_')]
  })

const inJson = (text: string): string => JSON.stringify(text).slice(1, -1)

const writtenForms = (secret: string): string[] => [
  secret,
  inJson(secret),
  inJson(inJson(secret)),
  secret.replaceAll("'", `'\\''`),
  secret.replaceAll("'", `''`),
  secret.replace(/[\\$`"]/g, '\\$&'),
  // Through bytes, since half a surrogate pair would throw.
  encodeURIComponent(Buffer.from(secret).toString()),
]

/** Text that precedes the value of a secret. */
const before = [
  // password=…  "rootPassword": "…"  \"password\":\"…\"  name: MYSQL_PASSWORD, value: …
  `(?:pass(?:word|wd|phrase)?|pwd|secret|token)[\\w.-]*["'\\\\]*(?:[,\\s]+["'\\\\]*value["'\\\\]*)?\\s*[:=]\\s*["'\\\\]*`,
  `--?(?:[\\w-]*-)?(?:pass(?:word|wd|phrase)?|secret|token)\\s+["']?`,
  `(?<![\\w-])-p["']?`,
  `identified\\s+by\\s+["'\\\\]*`,
  `://[^\\s/:@]+:`,
  `(?:incoming|outgoing)user\\s+\\S+\\s+["']?`,
].join('|')

/**
 * Masks secrets that are recognized by their form: private keys, kubeadm's bootstrap tokens and certificate keys, and
 * the key in a kubeconfig.
 */
const maskForms: Mask = (text) =>
  text
    .replace(/(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, `$1${shown}$2`)
    .replace(/(?<![A-Za-z0-9.])[a-z0-9]{6}\.[a-z0-9]{16}(?![A-Za-z0-9.])/g, shown)
    .replace(/(certificate-?key["'\\]*\s*[:= ]\s*["'\\]*)[0-9a-f]{64}/gi, `$1${shown}`)
    .replace(/((?:client-key-data|token)["'\\]*\s*:\s*["'\\]*)[A-Za-z0-9+/=._-]{32,}/g, `$1${shown}`)

/** Built once per view: the patterns of all secrets in one expression. */
export const createMask = (secrets: readonly string[]): Mask => {
  const known = [...new Set(secrets)].filter((secret) => secret.trim() !== '')
  const lines = known
    .flatMap((secret) => (secret.includes('\n') ? secret.split(/\r?\n/) : []))
    .map((line) => line.trim())
    .filter((line) => isDistinctive(line) && !line.startsWith('-----'))
  const distinctive = [...known.filter(isDistinctive), ...lines]
  const weak = known.filter((secret) => !isDistinctive(secret))

  const everywhere = new Set(
    distinctive
      .flatMap((secret) => [
        ...writtenForms(secret).map((form) => ({ form, whole: secret.length < 8 })),
        ...insideBase64(secret).map((form) => ({ form, whole: false })),
      ])
      // The longest first, since one secret may be the beginning of another.
      .sort((a, b) => b.form.length - a.form.length)
      .map(({ form, whole }) => (whole ? alone(literal(form)) : literal(form))),
  )
  const encoded = known.flatMap((secret) => [base64Word(`${secret}\n`), base64Word(secret)])
  const anywhere = [...encoded, ...everywhere].join('|')
  const asValue = weak
    .toSorted((a, b) => b.length - a.length)
    .flatMap(writtenForms)
    .map(literal)
    .join('|')

  const masks: Mask[] = [maskForms]
  if (anywhere !== '') {
    const pattern = new RegExp(anywhere, 'g')
    masks.push((text) => text.replace(pattern, shown))
  }
  if (asValue !== '') {
    const pattern = new RegExp(`(${before})(?:${asValue})(?![A-Za-z0-9])`, 'gi')
    masks.push((text) => text.replace(pattern, `$1${shown}`))
  }
  return (text) => masks.reduce((masked, mask) => mask(masked), text)
}

export const maskSecrets = (text: string, secrets: readonly string[]): string => createMask(secrets)(text)

/** Every secret of every lab that this process has loaded. */
const known = new Set<string>()
let maskOfKnown: Mask | undefined

/** From now on none of these is printed in a view, a report or an error. */
export const keepSecret = (secrets: readonly string[]): void => {
  for (const secret of secrets) {
    if (known.has(secret)) continue
    known.add(secret)
    maskOfKnown = undefined
  }
}

/** Masks all secrets that this process knows so far, and those recognized by their form. */
export const maskKnown: Mask = (text) => (maskOfKnown ??= createMask([...known]))(text)
