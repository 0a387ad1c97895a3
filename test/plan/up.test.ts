import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import { loadLab, parseLab } from '../../src/registry.js'
import { shipped } from '../helpers/shipped.js'
import type { FileOptions } from '../../src/machine/machine-file.js'
import type { Plan } from '../../src/context.js'
import { providerNamed } from '../../src/provider/load.js'
import { planUp } from '../../src/up.js'

const options: FileOptions = {
  secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
  lunDevice: (index) => `/dev/ubd${'cdefgh'.charAt(index)}`,
}

const provider = await providerNamed('uml')

const versions = { built: '1.36.3', minors: ['1.35', '1.36', '1.37'] }

const folder = join(import.meta.dirname, '..', 'lab', 'valid')
const parsed = (file: string, text = readFileSync(file, 'utf8')): Lab => parseLab(text, file, versions)

/** The shipped labs, and those that only a reader of the whole schema would write. */
const labs: readonly (readonly [name: string, lab: () => Promise<Lab>])[] = [
  ...shipped.map(({ name }) => [name, () => loadLab(name)] as const),
  ['nasty', () => Promise.resolve(parsed(join(import.meta.dirname, '..', 'machine', 'nasty.yaml')))],
  ...readdirSync(folder)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => [file, () => Promise.resolve(parsed(join(folder, file)))] as const),
]

const duplicatesIn = (ids: readonly string[]): readonly string[] =>
  ids.filter((id, index) => ids.indexOf(id) !== index)

const listing = ({ title, steps }: Plan): string =>
  [
    title,
    ...steps.flatMap(({ id, machine, phase, needs, apply, checks, title: what }) => [
      `${id}  [${phase}${machine === undefined ? '' : `, ${machine}`}${apply ? '' : ', only looks'}]  ${what}`,
      ...(needs.length === 0 ? [] : [`    needs ${needs.join(', ')}`]),
      ...checks.map(
        ({ id: check, title: fact, within }) =>
          `    ? ${check}: ${fact}${within === undefined ? '' : `, within ${String(within)} s`}`,
      ),
    ]),
    '',
  ].join('\n')

describe.each(['iscsi', 'iscsi-pair', 'iscsi-ha', 'deployment-ha'])('the plan of %s', (name) => {
  test('the plan matches the golden plan', async () => {
    await expect(listing(planUp(await loadLab(name), provider, options))).toMatchFileSnapshot(
      `../golden/plan/${name}.txt`,
    )
  })
})

describe.each(labs)('the plan of %s', (_, read) => {
  test('the plan has no missing and no circular needs', async () => {
    const { steps } = planUp(await read(), provider, options)
    const ids = steps.map(({ id }) => id)
    const done = new Set<string>()
    for (let before = -1; before < done.size;) {
      before = done.size
      for (const { id, needs } of steps) {
        for (const need of needs) expect(ids, `${id} needs ${need}`).toContain(need)
        if (needs.every((need) => done.has(need))) done.add(id)
      }
    }
    expect(ids.filter((id) => !done.has(id))).toEqual([])
  })

  test('the plan lists every step after those that it needs', async () => {
    const ids = planUp(await read(), provider, options).steps.map(({ id }) => id)
    for (const { id, needs } of planUp(await read(), provider, options).steps)
      for (const need of needs) expect(ids.indexOf(need), `${id} needs ${need}`).toBeLessThan(ids.indexOf(id))
  })

  test('the plan has no duplicate step and no duplicate check', async () => {
    const { steps } = planUp(await read(), provider, options)
    expect(duplicatesIn(steps.map(({ id }) => id))).toEqual([])
    expect(duplicatesIn(steps.flatMap(({ checks }) => checks.map(({ id }) => id)))).toEqual([])
  })

  test('the plan has a readable title for every step and check', async () => {
    const lab = await read()
    const machines = lab.machines.map((machine) => machine.name)
    for (const { id, title, machine, checks } of planUp(lab, provider, options).steps) {
      expect(id).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/)
      expect(title).toMatch(/^[A-Z]/)
      if (machine !== undefined) expect(machines).toContain(machine)
      expect(checks.length, id).toBeGreaterThan(0)
      for (const check of checks) {
        expect(check.id, check.id).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/)
        for (const text of [title, check.title, check.hint ?? ''])
          expect(text).not.toMatch(/undefined|\[object|NaN/)
        if (check.machine !== undefined) expect(machines).toContain(check.machine)
        if (check.hint?.startsWith('lab ')) expect(check.hint, check.id).toMatch(/^lab (doctor$|\w+ \S+)/)
      }
    }
  })

  test('the plan contains no secret', async () => {
    const lab = await read()
    const text = listing(planUp(lab, provider, options))
    const secrets = lab.targets
      .flatMap(({ chap }) => [chap.password])
      .filter((secret) => secret !== 'password')
    for (const secret of [...secrets, options.secrets.bootstrapToken]) expect(text).not.toContain(secret)
  })
})

describe('the plan of a lab', () => {
  test('the plan of a lab has at least 55 checks for iscsi-ha', async () => {
    const { steps } = planUp(await loadLab('iscsi-ha'), provider, options)
    expect(steps.flatMap(({ checks }) => checks).length).toBeGreaterThanOrEqual(55)
  })

  test('the plan of a lab has the checks of the walkthrough for every machine', async () => {
    const ids = planUp(await loadLab('iscsi-ha'), provider, options).steps.flatMap(({ checks }) =>
      checks.map(({ id }) => id),
    )
    for (const machine of ['target', 'master', 'worker1', 'worker2'])
      for (const what of ['running', 'reachable', 'memory', 'clock', 'files', 'kernel'])
        expect(ids).toContain(`${machine}-${what}`)
    for (const node of ['master', 'worker1', 'worker2'])
      for (const what of [
        'containerd',
        'kubelet',
        'ready',
        'version',
        'address',
        'pod-range',
        'routes',
        'kube-proxy',
      ])
        expect(ids).toContain(`${node}-${what}`)
  })

  test('the plan of a lab removes machines that are gone from the lab file before it configures the others', async () => {
    const lab = await loadLab('iscsi-ha')
    const { steps } = planUp(lab, provider, options, ['worker9'])
    expect(steps.find(({ id }) => id === 'remove-worker9')).toMatchObject({ machine: 'worker9' })
    const waiting = steps.filter(({ needs }) => needs.includes('remove-worker9')).map(({ id }) => id)
    expect(waiting).toEqual(lab.machines.map(({ name }) => `configure-${name}`))
    expect(steps).toHaveLength(planUp(lab, provider, options).steps.length + 1)
  })

  test('the plan of a lab has distinct step names even when two targets end in the same name', () => {
    const text = readFileSync(join(folder, 'two-targets.yaml'), 'utf8').replace(
      'eui.02004567A425678D\n',
      'iqn.2017-01.org.example:one\n',
    )
    const lab = parsed('same-name.yaml', text.replace(/^filesystems:[^]*/m, ''))
    expect(duplicatesIn(planUp(lab, provider, options).steps.map(({ id }) => id))).toEqual([])
  })

  test('the plan of a lab has distinct check names even when a machine is named like a part of the cluster', async () => {
    // Scenarios have words of their own, which machines must not use as names.
    const text = readFileSync((await loadLab('iscsi-ha')).file, 'utf8').replace(/^scenarios:[^]*/m, '')
    for (const name of [
      'database',
      'api',
      'clients',
      'volume',
      'etcd',
      'kube',
      'coredns',
      'kubelet',
      'row-through',
      'target-one',
    ]) {
      const lab = parsed('odd.yaml', text.replace('name: worker1', `name: ${name}`))
      const ids = planUp(lab, provider, options).steps.flatMap(({ checks }) => checks.map(({ id }) => id))
      expect(duplicatesIn(ids), name).toEqual([])
    }
  })
})
