import { execa } from 'execa'
import { describe, expect, test } from 'vitest'
import { quote, secret, shell } from '../../src/machine/sh.js'

/** Words that have a meaning for a shell, or that careless quoting would lose. */
const nasty: readonly (readonly [what: string, word: string])[] = [
  ['plain', 'worker1'],
  ['an IQN', 'iqn.2016-04.world.srv:target00'],
  ['nothing at all', ''],
  ['a blank', ' '],
  ['blanks within', 'two  words'],
  ['a tab', 'a\tb'],
  ['a single quote', "it's"],
  ['only single quotes', "'''"],
  ['a quoted single quote', `'\\''`],
  ['double quotes', 'say "yes"'],
  ['a backslash', 'back\\slash'],
  ['a backslash at the end', 'end\\'],
  ['a backslash and a letter', '\\n is not a newline'],
  ['a newline', 'first\nsecond'],
  ['newlines at the end', 'end\n\n'],
  ['a carriage return', 'dos\r\n'],
  ['a variable', '$HOME ${PATH} $$'],
  ['a command', '$(reboot) `reboot`'],
  ['operators', 'a;b&c|d&&e||f'],
  ['redirections', '> /tmp/x 2>&1 <y'],
  ['globs', '* ? [a-z] {a,b}'],
  ['a tilde', '~root'],
  ['a comment', '#not a comment'],
  ['history', '!! !$'],
  ['an assignment', 'PATH=/nowhere'],
  ['an option', '-n'],
  ['another option', '--'],
  ['a format', '%s %d %%'],
  ['brackets', '(a) { b; }'],
  ['an equals sign at the start', '=ls'],
  ['umlauts', 'Größe'],
  ['Japanese', 'パスワード'],
  ['outside the first plane', '🔑'],
  ['a control character', 'bell\u0007 escape\u001b[31m'],
  ['the byte order mark', '\ufeffx'],
  ['a long word', "'$x ".repeat(5000)],
]

/** The words that a real shell makes of it, each followed by a zero byte. */
const wordsOf = async (command: string): Promise<string[]> => {
  const { stdout } = await execa('/bin/sh', ['-c', command], { stripFinalNewline: false })
  return stdout.split('\0').slice(0, -1)
}

describe('quote', () => {
  test.each(nasty)('%s passes through a shell byte for byte', async (_, word) => {
    expect(await wordsOf(`printf '%s\\0' ${quote(word)}`)).toEqual([word])
  })

  test('a quoted word can be quoted again for a script inside a script', async () => {
    for (const [, word] of nasty.slice(0, -1)) {
      const inner = `printf '%s\\0' ${quote(word)}`
      expect(await wordsOf(`sh -c ${quote(inner)}`)).toEqual([word])
    }
  })

  test('words that need no quotes get none, so that commands stay readable', () => {
    for (const word of ['a', '/etc/hosts', 'k8s-app=kube-dns', 'a:b,c@d%e+f_g', '192.168.56.0/24', '-n'])
      expect(quote(word)).toBe(word)
  })
})

describe('shell', () => {
  test('every interpolated value is one word', async () => {
    for (const [, word] of nasty)
      expect(await wordsOf(shell`printf '%s\0' ${word} end`.text)).toEqual([word, 'end'])
  })

  test('an interpolated array is several words, and an empty one is none', async () => {
    const words = nasty.slice(0, -1).map(([, word]) => word)
    expect(await wordsOf(shell`printf '%s\0' ${words}`.text)).toEqual(words)
    expect(shell`ls ${[]}`.text).toBe('ls ')
  })

  test('numbers are interpolated as words', () => {
    expect(shell`ss sport = ${3260} ${[1, 'a b']}`.text).toBe(`ss sport = 3260 1 'a b'`)
  })

  test('the text between the values is left unchanged', () => {
    const { text } = shell`awk '/^MemTotal/ { printf "%d", $2 / 1024 }' ${'/proc/meminfo'} | tr '\n' ' '`
    expect(text).toBe(`awk '/^MemTotal/ { printf "%d", $2 / 1024 }' /proc/meminfo | tr '\\n' ' '`)
  })

  test('a secret reaches the shell as a word and people as asterisks', async () => {
    for (const [, word] of nasty) {
      const command = shell`printf '%s\0' ${'user'} ${secret(word)}`
      expect(await wordsOf(command.text)).toEqual(['user', word])
      expect(command.shown).toBe(String.raw`printf '%s\0' user ***`)
    }
  })

  test('a command without secrets is shown as it runs', () => {
    const command = shell`cat ${"it's"} ${[1, '$x']}`
    expect(command.shown).toBe(command.text)
  })
})
