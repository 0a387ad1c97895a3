import { describe, expect, test } from 'vitest'
import { Interrupted, LabError } from '../../src/error.js'
import { printError } from '../../src/view/errors.js'

describe('an error that a user can act on', () => {
  test.each([
    { name: 'message alone', error: new LabError('x', 'no such machine'), want: ['✖ no such machine'] },
    {
      name: 'hint and log',
      error: new LabError('x', 'cp: boot failed', { hint: 'lab console cp', log: '/tmp/cp.log' }),
      want: ['✖ cp: boot failed', '  Hint: lab console cp', '  Log:  /tmp/cp.log'],
    },
    {
      name: 'several lines',
      error: new LabError('x', 'two problems:\n- a\n- b', { hint: 'do this\nand that' }),
      want: ['✖ two problems:', '  - a', '  - b', '  Hint: do this', '        and that'],
    },
    {
      name: 'no stack, also not of its cause',
      error: new LabError('x', 'it failed', { cause: new Error('why') }),
      want: ['✖ it failed'],
    },
    {
      name: 'escape sequences of a machine',
      error: new LabError('x', 'said \u001b[2J\u001b]0;title\u0007boom\u0008\r\nand\tmore'),
      want: ['✖ said boom', '  and  more'],
    },
    { name: 'interrupted', error: new Interrupted(), want: ['✖ interrupted'] },
  ])('an error is printed as people need it: $name', ({ error, want }) => {
    expect(printError(error, false).split('\n')).toEqual(want)
  })

  test.each([
    ...['EACCES', 'EPERM', 'EROFS', 'ENOSPC', 'EDQUOT', 'EFBIG', 'EIO', 'ELOOP', 'ENAMETOOLONG', 'ENOTDIR'],
    ...['EISDIR', 'EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN', 'ESTALE', 'ENOTSUP'],
  ])('an error of the host says what failed, why, and what to type: %s', (code) => {
    const text = printError(Object.assign(new Error(code), { code, syscall: 'open', path: '/srv/x' }), false)
    expect(text).toMatch(/^✖ \/srv\/x cannot be opened: .+\n {2}Hint: .+$/)
  })

  test('a current folder that was removed is no defect', () => {
    const error = Object.assign(new Error('no such file'), { code: 'ENOENT', syscall: 'uv_cwd' })
    expect(printError(error, false)).toBe('✖ the current folder no longer exists\n  Hint: cd')
  })

  test('an error is printed in colour', () => {
    expect(printError(new LabError('x', 'no', { hint: 'yes' }), true)).toBe(
      '\u001b[31m✖\u001b[39m no\n  \u001b[1mHint:\u001b[22m yes',
    )
  })

  test('secrets are masked in every part of an error', () => {
    const error = new LabError('x', 'wrong: hunter2hunter2', {
      hint: 'echo hunter2hunter2',
      log: '/hunter2hunter2',
    })
    expect(printError(error, false, ['hunter2hunter2'])).not.toContain('hunter2')
  })
})

describe('a defect', () => {
  test('a defect keeps its stack and the stacks of its causes, and asks for a bug report', () => {
    const text = printError(new TypeError('x is undefined', { cause: new RangeError('too far') }), false)
    expect(text).toMatch(/^✖ TypeError: x is undefined\n\s+at .*errors\.test\.ts/)
    expect(text).toMatch(/Caused by: RangeError: too far\n\s+at /)
    expect(text).toMatch(/This is a defect of lab.*Please report it/s)
  })

  test.each([
    { name: 'a string', thrown: 'boom', want: "✖ 'boom'" },
    { name: 'nothing', thrown: undefined, want: '✖ undefined' },
    { name: 'an object', thrown: { code: 7 }, want: '✖ { code: 7 }' },
  ])('$name that was thrown is printed as a defect', ({ thrown, want }) => {
    const text = printError(thrown, false)
    expect(text.split('\n')[0]).toBe(want)
    expect(text).toContain('Please report it')
  })

  test('secrets are masked in a defect', () => {
    expect(printError(new Error('hunter2hunter2'), false, ['hunter2hunter2'])).not.toContain('hunter2')
  })
})
