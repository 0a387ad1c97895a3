import { describe, expect, test } from 'vitest'
import { LabError } from '../../src/error.js'
import { maskSecrets, printError } from '../../src/view/errors.js'
import { createMask, keepSecret } from '../../src/view/secrets.js'

const base64 = (text: string): string => Buffer.from(text).toString('base64')

const awkward = `a'b"c$d\\e 9`

describe('a distinctive secret is masked everywhere', () => {
  test.each([
    { name: 'alone', secret: 'correct-horse-7', text: 'correct-horse-7', want: '***' },
    { name: 'in a sentence', secret: 'correct-horse-7', text: 'saw correct-horse-7.', want: 'saw ***.' },
    { name: 'inside a word', secret: 'correct-horse-7', text: 'xcorrect-horse-7x', want: 'x***x' },
    { name: 'in JSON', secret: awkward, text: JSON.stringify({ p: awkward }), want: '{"p":"***"}' },
    {
      name: 'in JSON in JSON',
      secret: awkward,
      text: JSON.stringify(JSON.stringify({ p: awkward })),
      want: '"{\\"p\\":\\"***\\"}"',
    },
    { name: 'quoted for a shell', secret: awkward, text: `echo 'a'\\''b"c$d\\e 9'`, want: `echo '***'` },
    {
      name: 'in double quotes of a shell',
      secret: 'pa$$word"9',
      text: 'x "pa\\$\\$word\\"9"',
      want: 'x "***"',
    },
    { name: 'in single quotes of YAML', secret: `it's-mine-9`, text: `p: 'it''s-mine-9'`, want: `p: '***'` },
    {
      name: 'in a URL',
      secret: 'p@ss/word 9',
      text: 'http://u:p%40ss%2Fword%209@h/',
      want: 'http://u:***@h/',
    },
    { name: 'as base64', secret: 'correct-horse', text: base64('correct-horse'), want: '***' },
    {
      name: 'as base64, with a newline',
      secret: 'correct-horse',
      text: base64('correct-horse\n'),
      want: '***',
    },
    {
      name: 'of two, the longer one first',
      secret: 'correct-horse',
      others: ['correct-horse-battery'],
      text: 'correct-horse-battery correct-horse',
      want: '*** ***',
    },
    { name: 'short, alone', secret: 's3cret', text: 'login s3cret failed', want: 'login *** failed' },
    { name: 'short, in a longer word', secret: 's3cret', text: 'xs3cret5', want: 'xs3cret5' },
    {
      name: 'with signs of regular expressions',
      secret: 'a.*b(c)+[d]',
      text: 'is a.*b(c)+[d]',
      want: 'is ***',
    },
    {
      name: 'one line of several',
      secret: 'first-line-1\nsecond-line-2',
      text: 'got second-line-2',
      want: 'got ***',
    },
    {
      name: 'but not the frame of a key',
      secret: '-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----',
      text: '-----BEGIN KEY-----\nMIIEvQIBADANBg',
      want: '-----BEGIN KEY-----\n***',
    },
  ])('a distinctive secret is masked: $name', ({ secret, others = [], text, want }) => {
    expect(maskSecrets(text, [secret, ...others])).toBe(want)
  })

  test.each(['', 'u', 'us', 'usr', 'user:', '{"auth":"user:'])(
    'a distinctive secret is masked inside longer base64 after %j',
    (prefix) => {
      const masked = maskSecrets(base64(`${prefix}correct-horse-battery and more`), ['correct-horse-battery'])
      expect(masked).toContain('***')
      expect(Buffer.from(masked.replace(/.*\*\*\*/, ''), 'base64').toString()).not.toContain('battery')
    },
  )
})

describe('a weak secret is masked only as a value', () => {
  test.each([
    {
      secret: 'password',
      text: 'node.session.auth.password = password',
      want: 'node.session.auth.password = ***',
    },
    {
      secret: 'password',
      text: 'set auth userid=username password=password',
      want: 'set auth userid=username password=***',
    },
    { secret: 'password', text: 'incominguser username password', want: 'incominguser username ***' },
    {
      secret: 'password',
      text: 'node.session.auth.password: cGFzc3dvcmQK',
      want: 'node.session.auth.password: ***',
    },
    { secret: 'password', text: 'data: cGFzc3dvcmQ=', want: 'data: ***' },
    { secret: 'password', text: 'the password is wrong', want: 'the password is wrong' },
    { secret: 'root', text: 'MYSQL_ROOT_PASSWORD=root', want: 'MYSQL_ROOT_PASSWORD=***' },
    { secret: 'root', text: '{"rootPassword": "root"}', want: '{"rootPassword": "***"}' },
    { secret: 'root', text: '"{\\"rootPassword\\":\\"root\\"}"', want: '"{\\"rootPassword\\":\\"***\\"}"' },
    {
      secret: 'root',
      text: '- name: MYSQL_PASSWORD\n  value: root',
      want: '- name: MYSQL_PASSWORD\n  value: ***',
    },
    { secret: 'root', text: 'mysql --password root -h db', want: 'mysql --password *** -h db' },
    { secret: 'root', text: 'mysql -uroot -proot', want: 'mysql -uroot -p***' },
    { secret: 'root', text: "IDENTIFIED BY 'root'", want: "IDENTIFIED BY '***'" },
    { secret: 'root', text: 'mysql://root:root@db:3306', want: 'mysql://root:***@db:3306' },
    {
      secret: 'root',
      text: 'Access denied for root, chroot, /root',
      want: 'Access denied for root, chroot, /root',
    },
    { secret: 'root', text: 'password: rootless', want: 'password: rootless' },
    { secret: '3306', text: 'port 3306', want: 'port 3306' },
    { secret: 'ab', text: 'about ab', want: 'about ab' },
    { secret: 'a', text: 'password=a bad', want: 'password=*** bad' },
    { secret: 'worker-1', text: 'Boot worker-1', want: 'Boot worker-1' },
    { secret: 'control-plane', text: 'the control-plane', want: 'the control-plane' },
    { secret: 'password123', text: 'password123 PASSWORD=password123', want: 'password123 PASSWORD=***' },
    { secret: '', text: 'password=', want: 'password=' },
    { secret: '  ', text: 'a   b', want: 'a   b' },
  ])('the weak secret $secret is masked where it stands alone: $text', ({ secret, text, want }) => {
    expect(maskSecrets(text, [secret])).toBe(want)
  })
})

test('text does not change when there are no secrets', () => {
  expect(maskSecrets('password=x', [])).toBe('password=x')
})

test('private keys, bootstrap tokens and certificate keys are recognized by their form and masked', () => {
  const mask = createMask([])
  const key = '-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza\n-----END OPENSSH PRIVATE KEY-----'
  expect(mask(`key: ${key}.`)).not.toContain('b3BlbnNza')
  expect(mask('kubeadm join --token abcdef.0123456789abcdef x')).toBe('kubeadm join --token *** x')
  expect(mask(`--certificate-key ${'a1'.repeat(32)}`)).toBe('--certificate-key ***')
})

test('every printer of errors masks what the process knows to be secret', () => {
  keepSecret(['Zebra "47"', 'a$b'])
  expect(printError(new LabError('x', 'Zebra "47" and a$b', { hint: 'say a$b' }), false)).toBe(
    '✖ *** and ***\n  Hint: say ***',
  )
})
