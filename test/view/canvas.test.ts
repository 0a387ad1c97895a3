import { describe, expect, test } from 'vitest'
import { clip, fit } from '../../src/view/canvas.js'

const spinner = ['⠋', '⠙']

const frame = [
  '✔ machines  4 steps, 6.1 s',
  '✔ targets  2 steps, 1.0 s',
  '⠋ nodes  2 of 6 steps, 4 s',
  '  ✔ cp  Turn swap off  already so: it is off',
  '  ✔ worker1  Turn swap off  0.3 s',
  '  ✖ worker2  Turn swap off  0.3 s',
  '    swapoff: /dev/zram0: read failed',
  '    Hint: lab ssh small worker2',
  '  ⠋ cp  Start containerd  3 s',
  '    › waiting until containerd answers; last seen: refused',
  '  ⠋ worker1  Start containerd  3 s',
  '    › waiting until containerd answers; last seen: refused',
  '  ◼ worker2  Start containerd',
  '◼ workers  3 steps',
  '◼ workload  5 steps',
]

describe('a frame that is higher than the terminal', () => {
  test('a frame that fits is drawn in full', () => {
    expect(fit(frame, 15, spinner)).toEqual(frame)
  })

  test('finished steps of unfinished phases are left out first', () => {
    expect(fit(frame, 14, spinner)).toEqual([
      ...frame.filter((line) => !line.startsWith('  ✔')),
      '… not shown: 2 done',
    ])
  })

  test('waiting steps are left out next, then finished phases, then the last phases', () => {
    expect(fit(frame, 11, spinner)).toEqual([
      '⠋ nodes  2 of 6 steps, 4 s',
      ...frame.slice(5, 12),
      '◼ workers  3 steps',
      '◼ workload  5 steps',
      '… not shown: 4 done, 1 waiting',
    ])
    expect(fit(frame, 10, spinner).at(-2)).toBe('◼ workers  3 steps')
  })

  test('only failures and running steps remain when space is shortest', () => {
    expect(fit(frame, 7, spinner)).toEqual([
      '⠋ nodes  2 of 6 steps, 4 s',
      '  ✖ worker2  Turn swap off  0.3 s',
      '    swapoff: /dev/zram0: read failed',
      '    Hint: lab ssh small worker2',
      '  ⠋ cp  Start containerd  3 s',
      '  ⠋ worker1  Start containerd  3 s',
      '… not shown: 4 done, 3 waiting',
    ])
  })

  test.each([1, 2, 3, 5, 8, 14, 15, 40])('a frame is never higher than %i', (height) => {
    expect(fit(frame, height, spinner).length).toBeLessThanOrEqual(height)
  })

  test('icons are recognized behind their colours', () => {
    const coloured = frame.map((line) => line.replace(/[✔✖◼⠋]/u, (icon) => `\u001b[32m${icon}\u001b[39m`))
    expect(fit(coloured, 11, spinner)).toHaveLength(11)
    expect(fit(coloured, 11, spinner).at(-1)).toBe('… not shown: 4 done, 1 waiting')
  })
})

test.each([
  { text: 'short', width: 5, want: 'short' },
  { text: 'longer', width: 5, want: 'long…' },
  { text: '🙂🙂🙂', width: 2, want: '🙂…' },
  { text: 'x', width: 0, want: '…' },
  { text: 'x', width: -3, want: '…' },
])('clip shortens $text to $width columns', ({ text, width, want }) => {
  expect(clip(text, width)).toBe(want)
})
