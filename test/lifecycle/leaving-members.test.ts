/** Control planes that leave the lab file: whether their machines may be removed. */
import { expect, test } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import { whyTheyStay } from '../../src/lifecycle/leaving-members.js'
import { loadLab } from '../../src/registry.js'

const three = await loadLab('control-planes')
const without = (...names: readonly string[]): Lab => ({
  ...three,
  machines: three.machines.filter(({ name }) => !names.includes(name)),
})
const running = (...names: readonly string[]) =>
  three.machines.map(({ name }) => ({
    name,
    status: names.includes(name) ? ('running' as const) : ('stopped' as const),
  }))

test('control planes may leave while most of the members of etcd run', () => {
  expect(
    whyTheyStay(three, without('master2', 'master3'), running('master1', 'master2', 'master3')),
  ).toBeUndefined()
  expect(whyTheyStay(three, without('master3'), running('master1', 'master2'))).toBeUndefined()
})

test('control planes of a stopped lab stay, because etcd could not let them go', () => {
  expect(whyTheyStay(three, without('master2', 'master3'), running())).toBe(
    'master2 and master3 can leave etcd only while most of its members run; of master1, master2, master3 there run: none',
  )
  expect(whyTheyStay(three, without('master3'), running('master1'))).toContain('there run: master1')
})

test('workers of a stopped lab may leave', () => {
  expect(whyTheyStay(three, without('worker2'), running())).toBeUndefined()
})
