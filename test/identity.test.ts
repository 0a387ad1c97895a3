/** A name and a seat identify a lab: two seats of one lab share no name on a host. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { atSeatOf, labHere, labOf, seatHere, turnOf, wordOf } from '../src/identity.js'
import { parseLab } from '../src/registry.js'
import { takeLock } from '../src/lock.js'
import { prefixOf } from '../src/provider/vagrant/hypervisor.js'
import { renderVagrantfile } from '../src/provider/vagrant/vagrantfile.js'
import { umlProvider } from '../src/provider/uml/uml.js'
import { madeLabs, pathsOf, type LabPaths, writePrivate } from '../src/state.js'
import { temporaryFolder } from './helpers/folder.js'

const file = join(import.meta.dirname, '..', 'labs', 'iscsi-ha.yaml')
const lab = parseLab(readFileSync(file, 'utf8'), file)
const seats = ['1', '2', 'teacher'].map((seat) => ({ ...lab, seat }))

let state = ''
beforeEach(async () => {
  state = await temporaryFolder()
  vi.stubEnv('LAB_STATE', state)
})

const allPaths = (paths: LabPaths): readonly string[] => [
  ...Object.values(paths).filter((path) => typeof path === 'string'),
  paths.machine('worker1'),
  paths.fenceLock('worker1'),
]

describe('a lab without a seat', () => {
  test('a lab without a seat keeps the paths of versions before seats', () => {
    const paths = pathsOf({ name: 'iscsi' })
    expect(paths.root).toBe(join(state, 'iscsi'))
    expect(paths.lock).toBe(join(state, '.iscsi.lock'))
    expect(paths.fenceLock('worker1')).toBe(join(state, '.iscsi.fence-worker1.lock'))
  })

  test('a lab without a seat keeps the machine names and processors of versions before seats', () => {
    expect(prefixOf({ name: 'iscsi' })).toBe('lab_iscsi_')
    const sum = Buffer.from('iscsi-ha').reduce((total, byte) => total + byte, 0)
    expect(turnOf({ name: 'iscsi-ha' }, 4)).toBe(sum)
  })
})

describe('two seats of one lab', () => {
  test('two seats share no path and no lock, and no fence lock equals a seat lock', () => {
    const paths = [{ name: lab.name }, ...seats, { name: lab.name, seat: 'fence-worker1' }].flatMap((id) =>
      allPaths(pathsOf(id)),
    )
    expect(new Set(paths).size).toBe(paths.length)
    const roots = seats.map((id) => pathsOf(id).root)
    for (const root of roots)
      expect(roots.filter((other) => `${other}/`.startsWith(`${root}/`))).toEqual([root])
  })

  test('two seats share no socket, console or port file of User-Mode Linux', () => {
    const places = seats.flatMap((id) => [
      umlProvider.console?.log(id, 'worker1'),
      umlProvider.network?.proxyCommand?.(id),
    ])
    expect(places).not.toContain(undefined)
    expect(new Set(places).size).toBe(places.length)
  })

  test('two seats share no name that a hypervisor knows', () => {
    const prefixes = seats.map(prefixOf)
    for (const prefix of prefixes)
      expect(prefixes.filter((other) => other.startsWith(prefix))).toEqual([prefix])
    expect(renderVagrantfile(seats[0]!, 'libvirt')).toContain('iscsi-ha@1')
  })

  test('two seats of one lab can be changed at the same time', async () => {
    const signal = new AbortController().signal
    const releases = await Promise.all(
      seats.map((id) => takeLock(pathsOf(id).lock, { command: 'lab up', purpose: 'change', signal })),
    )
    for (const release of releases) await release()
  })

  test('the seats of a lab are found by the folders they made', async () => {
    for (const id of [{ name: 'iscsi' }, ...seats]) await writePrivate(pathsOf(id).source, '')
    expect((await madeLabs()).map(wordOf).sort()).toEqual([
      'iscsi',
      'iscsi-ha@1',
      'iscsi-ha@2',
      'iscsi-ha@teacher',
    ])
  })
})

describe('the seat of a process', () => {
  test('the seat comes from LAB_SEAT and is passed on to child processes', () => {
    vi.stubEnv('LAB_SEAT', '07')
    expect(labHere('iscsi')).toEqual({ name: 'iscsi', seat: '07' })
    expect(atSeatOf({ name: 'iscsi', seat: '08' })['LAB_SEAT']).toBe('08')
    vi.stubEnv('LAB_SEAT', '')
    expect(labHere('iscsi')).toEqual({ name: 'iscsi' })
  })

  test.each(['a b', '../x', 'A', 'a@b', 'x'.repeat(17)])(
    'a seat that is not a valid word is refused: %s',
    (seat) => {
      vi.stubEnv('LAB_SEAT', seat)
      expect(() => seatHere()).toThrow(/a seat has up to 16 of/)
    },
  )

  test("the seat is part of the folder's name and can be read from it", () => {
    for (const id of [{ name: 'iscsi' }, { name: 'iscsi-ha', seat: '07' }])
      expect(labOf(wordOf(id))).toEqual(id)
    for (const word of ['.iscsi', 'iscsi@', '@1', 'a@b@c', 'A']) expect(labOf(word)).toBeUndefined()
  })
})
