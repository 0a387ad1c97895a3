/** A shell command, and the form in which it is shown, with secrets masked. */
export interface Command {
  readonly text: string
  readonly shown: string
}

class Secret {
  readonly value: string
  constructor(value: string) {
    this.value = value
  }
}

/** Marks a value that must not appear in output. Standard input is better: arguments are visible in `ps`. */
export const secret = (value: string): Secret => new Secret(value)

/** Quotes one word for a POSIX shell. */
export const quote = (word: string): string =>
  /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`

type Value = string | number | Secret | readonly (string | number)[]

const text = (value: Value): string =>
  value instanceof Secret
    ? quote(value.value)
    : Array.isArray(value)
      ? value.map((word) => quote(String(word))).join(' ')
      : quote(String(value))

/** Template tag: every interpolated value becomes one quoted word, and an array several. */
export const shell = (strings: TemplateStringsArray, ...values: readonly Value[]): Command => ({
  text: String.raw({ raw: strings.raw }, ...values.map(text)),
  shown: String.raw(
    { raw: strings.raw },
    ...values.map((value) => (value instanceof Secret ? '***' : text(value))),
  ),
})
