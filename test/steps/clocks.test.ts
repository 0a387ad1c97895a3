/** Clocks of machines whose host was asleep; `lab up` and `lab run` set them before anything is measured. */
import { expect, test } from 'vitest'
import type { Context } from '../../src/context.js'
import { loadLab } from '../../src/registry.js'
import { setClocks } from '../../src/steps/clocks.js'

const lab = await loadLab('iscsi-ha')

/** Machines whose clocks are ahead by these seconds; NaN: it does not answer. */
const machinesAt = (ahead: Readonly<Record<string, number>>) => {
  const done: string[] = []
  const context = {
    lab,
    signal: new AbortController().signal,
    machine: (name: string) => ({
      run: ({ text }: { text: string }) => {
        const skew = ahead[name] ?? 0
        if (Number.isNaN(skew)) return Promise.reject(new Error('no answer'))
        if (text.startsWith('date +')) return Promise.resolve(String(Date.now() / 1000 + skew))
        done.push(`${name}: ${text.replace(/@[\d.]+/, 'now')}`)
        return Promise.resolve('')
      },
    }),
  } as unknown as Context
  return { done, context }
}

test('only clocks that are wrong are set, and the kubelets of those machines report again', async () => {
  const { done, context } = machinesAt({ target: -3600, worker1: 120, worker2: 1 })
  expect(await setClocks(context)).toEqual([
    'the clock of target was 3600 s behind',
    'the clock of worker1 was 120 s ahead',
  ])
  expect(done.sort()).toEqual([
    'target: date -s now',
    'worker1: date -s now',
    'worker1: systemctl try-restart kubelet',
  ])
})

test('a machine that does not answer keeps no other clock from being set', async () => {
  const { done, context } = machinesAt({ master: NaN, worker2: -90 })
  expect(await setClocks(context)).toEqual(['the clock of worker2 was 90 s behind'])
  expect(done).toContain('worker2: date -s now')
})
