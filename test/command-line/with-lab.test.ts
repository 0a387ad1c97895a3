/** What a command holds while it works on a lab, and the order in which it lets go. */
import { describe, expect, test, vi } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import type { Provider } from '../../src/provider/provider.js'
import { withLab } from '../../src/command-line/with-lab.js'
import type { Io } from '../../src/command-line/verb.js'

const order = vi.hoisted((): string[] => [])

vi.mock('../../src/lock.js', () => ({
  takeLock: async () => {
    order.push('lock taken')
    return async () => void order.push('lock released')
  },
}))
vi.mock('../../src/view/view.js', async (actual) => ({
  ...(await actual<object>()),
  createView: () => ({ close: async () => void order.push('view closed') }),
}))
vi.mock('../../src/parts/parts.js', () => ({ builtKubectl: () => 'kubectl' }))
vi.mock('../../src/session.js', () => ({
  openSession: (lab: Lab, { name }: { readonly name: string }) => ({
    lab,
    close: async () => {
      order.push(`${name} closed`)
      if (name === 'broken') throw new Error('broken cannot be closed')
    },
  }),
}))

const io = { stderr: {}, stdout: {}, signal: new AbortController().signal } as unknown as Io
const lab = { name: 'sample', seat: undefined } as unknown as Lab
const needs = { io, options: {}, lock: 'up', keepEvents: false }
const provider = (name: string): Provider => ({ name }) as unknown as Provider

const afterwards = async (work: () => Promise<unknown>): Promise<readonly string[]> => {
  order.length = 0
  await work()
  return [...order]
}

describe('what a command holds while it works on a lab', () => {
  test('everything that a command holds is released in reverse order: the view, the sessions, and the lock last', async () => {
    const done = await afterwards(() =>
      withLab(lab, needs, async ({ open }) => {
        await open(lab, provider('first'))
        await open(lab, provider('second'))
        order.push('work')
      }),
    )
    expect(done).toEqual([
      'lock taken',
      'work',
      'view closed',
      'second closed',
      'first closed',
      'lock released',
    ])
  })

  test('everything that a command holds is released in the same order when the work fails, and that failure is thrown', async () => {
    const done = await afterwards(() =>
      expect(
        withLab(lab, needs, async ({ open }) => {
          await open(lab, provider('broken'))
          await open(lab, provider('first'))
          throw new Error('the work failed')
        }),
      ).rejects.toThrow('the work failed'),
    )
    expect(done).toEqual(['lock taken', 'view closed', 'first closed', 'broken closed', 'lock released'])
  })

  test('everything that a command holds is released to the end when a session cannot be closed, which is then the error', async () => {
    const done = await afterwards(() =>
      expect(
        withLab(lab, needs, async ({ open }) => {
          await open(lab, provider('first'))
          await open(lab, provider('broken'))
        }),
      ).rejects.toThrow('broken cannot be closed'),
    )
    expect(done).toEqual(['lock taken', 'view closed', 'broken closed', 'first closed', 'lock released'])
  })

  test('a command that needs no lock takes none', async () => {
    const { lock: _lock, ...without } = needs
    expect(await afterwards(() => withLab(lab, without, async () => undefined))).toEqual(['view closed'])
  })
})
