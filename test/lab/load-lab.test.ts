/** Labs by name and by path, new lab files, and the schema for editors. */
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { exitCodes, LabError } from '../../src/error.js'
import { jsonSchema, loadLab, parseLab } from '../../src/registry.js'
import { shipped } from '../helpers/shipped.js'
import { versionProblem } from '../../src/lab/cluster-rules.js'
import { initLab } from '../../src/lab/load.js'
import { schemaFile } from '../../src/lab/schema.js'
import { listFile, listOf, shippedLabs } from '../../src/lab/shipped.js'
import { here, problemsOf, thrownBy, versions } from './problems.js'

describe('CHAP secrets', () => {
  const withPassword = (password: string): string =>
    readFileSync(join(here, 'valid', 'nasty-secrets.yaml'), 'utf8').replace(
      /password: .*/,
      () => `password: ${JSON.stringify(password)}`,
    )

  test.each([
    ['x'],
    ['x'.repeat(255)],
    ['é'.repeat(127)],
    ['a  b'],
    ['"'],
    ["'"],
    ['\\'],
    ['\\n'],
    ['$(reboot)'],
    ['#'],
  ])('the CHAP secret %j is accepted', (password) => {
    expect(parseLab(withPassword(password), 'lab.yaml', versions).targets[0]?.chap.password).toBe(password)
  })

  test.each([
    ['', 'is empty text; expected 1 to 255 bytes'],
    ['é'.repeat(128), 'has 256 bytes in UTF-8; expected 1 to 255'],
    ['a\nb', 'contains a line break or another control character'],
    ['a\u0000b', 'contains a line break or another control character'],
    ['a\u2028b', 'contains a line break or another control character'],
    ['\ud800', 'contains a line break or another control character'],
    [' a', 'begins or ends with a space; open-iscsi strips it'],
    ['a ', 'begins or ends with a space; open-iscsi strips it'],
  ])('the CHAP secret %j is refused', (password, message) => {
    expect(problemsOf(withPassword(password)).message).toContain(`chap.password: ${message}`)
  })
})

describe('the Kubernetes version', () => {
  test.each([
    ['1.36.3', undefined, undefined],
    ['1.36.3', 'uml', undefined],
    [
      '1.36.2',
      'uml',
      '1.36.2 is not built here; expected 1.36.3 (other versions need provider: libvirt or virtualbox)',
    ],
    [
      '1.36.2',
      undefined,
      '1.36.2 is not built here; expected 1.36.3 (other versions need provider: libvirt or virtualbox)',
    ],
    ['1.35.0', 'virtualbox', undefined],
    ['1.37.12', 'libvirt', undefined],
    ['1.3.0', 'libvirt', '1.3.0 is not supported; expected a version of 1.35, 1.36, 1.37'],
    ['1.34.9', 'virtualbox', '1.34.9 is not supported; expected a version of 1.35, 1.36, 1.37'],
  ] as const)(
    'version %s is accepted or refused with a reason for provider %s',
    (version, provider, message) => {
      expect(versionProblem(version, provider, versions)).toBe(message)
    },
  )

  test('any supported version is accepted when no built version is known', () => {
    expect(versionProblem('1.37.0', 'uml', { ...versions, built: undefined })).toBeUndefined()
  })
})

describe('loadLab', () => {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-load-'))
    await writeFile(join(folder, 'bytes.yaml'), Buffer.from([0x61, 0x3a, 0x20, 0xff, 0xfe]))
    await writeFile(join(folder, 'huge.yaml'), Buffer.alloc(1024 ** 2 + 1, 0x20))
    await writeFile(join(folder, 'good'), initLab('good'))
    await mkdir(join(folder, 'sub.yaml'))
    await symlink('loop.yaml', join(folder, 'loop.yaml'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  const failure = async (name: string): Promise<LabError> =>
    loadLab(name).then(
      () => Promise.reject(new Error('it was loaded')),
      (error: unknown) => (error instanceof LabError ? error : Promise.reject(error as Error)),
    )

  test('loadLab reads a file at a path', async () => {
    expect(await loadLab(join(folder, 'good'))).toMatchObject({ name: 'good', file: join(folder, 'good') })
  })

  test.each([
    ['none.yaml', 'cannot be read: there is no such file'],
    ['good/x.yaml', 'cannot be read: there is no such file'],
    ['sub.yaml', 'is a directory; expected a lab file'],
    ['loop.yaml', 'cannot be read: its symbolic links form a loop'],
    ['bytes.yaml', 'is not UTF-8 text'],
    ['huge.yaml', 'has 1048577 bytes; the limit for a lab file is 1048576'],
  ])('loadLab refuses %s', async (name, message) => {
    const error = await failure(join(folder, name))
    expect(error.message).toBe(`${join(folder, name)}  ${message}`)
    expect(error).toMatchObject({ code: 'bad-lab-file', exitCode: exitCodes.usage })
  })

  test('loadLab refuses a device', async () => {
    expect((await failure('/dev/null')).message).toBe(
      '/dev/null  is not an ordinary file; expected a lab file',
    )
  })

  test.each([
    ['iscsi-hq', 'no lab named iscsi-hq; did you mean iscsi-ha?'],
    ['ISCSI', 'no lab named ISCSI; did you mean iscsi?'],
    ['wonderland', 'no lab named wonderland'],
    ['a\u001b[31m', 'no lab named a\\u001b[31m'],
    ['', 'no lab named '],
  ])('loadLab does not know the name %j', async (name, message) => {
    const error = await failure(name)
    expect(error).toMatchObject({
      message,
      hint: 'lab list shows them',
      exitCode: exitCodes.usage,
      code: 'no-such-lab',
    })
  })
})

describe('initLab', () => {
  test.each(['my-lab', '007', 'null', '1e3', 'true'])(
    'initLab writes a valid file for the name %s',
    (name) => {
      for (const from of [undefined, 'iscsi', 'iscsi-ha']) {
        const lab = parseLab(initLab(name, from), `${name}.yaml`)
        expect(lab.name).toBe(name)
      }
    },
  )

  test('every commented setting of the template is valid when it is enabled', () => {
    const text = initLab('all')
      .replaceAll(/^( *)# ((?:provider|filesystems|kubelet|controllerManager):|- \{| {2}- \{)/gm, '$1$2')
      .replace(
        /^machines:/m,
        'machines:\n  - { name: initiator, role: initiator, address: 192.168.56.80, memory: 512MiB }',
      )
    expect(text).toMatch(/^provider: virtualbox$/m)
    const lab = parseLab(text, 'all.yaml')
    expect(lab).toMatchObject({ provider: 'virtualbox', filesystems: [{ lun: 1 }] })
    expect(lab.kubernetes).toMatchObject({
      kubelet: { maxPods: 50 },
      controllerManager: { 'node-monitor-grace-period': '20s' },
    })
  })

  test('initLab refuses an invalid name and an unknown template', () => {
    expect(thrownBy(() => initLab('My Lab'))).toMatchObject({
      code: 'bad-lab-name',
      exitCode: exitCodes.usage,
    })
    expect(thrownBy(() => initLab('x'.repeat(25)))).toMatchObject({ code: 'bad-lab-name' })
    expect(thrownBy(() => initLab('ok', 'iscsi_ha'))).toMatchObject({ code: 'no-such-lab' })
  })
})

describe('labs/lab.schema.json', () => {
  test('labs/lab.schema.json matches the schema', () => {
    expect(JSON.parse(readFileSync(schemaFile, 'utf8'))).toEqual(jsonSchema())
  })

  test('labs/lab.schema.json describes every field', () => {
    const missing: string[] = []
    const look = (node: unknown, path: string): void => {
      if (typeof node !== 'object' || node === null) return
      for (const [key, child] of Object.entries((node as { properties?: object }).properties ?? {})) {
        if (!(child as { description?: string }).description) missing.push(`${path}.${key}`)
        look(child, `${path}.${key}`)
      }
      for (const items of [(node as { items?: unknown }).items].flat()) look(items, `${path}[]`)
      for (const option of (node as { oneOf?: unknown[] }).oneOf ?? []) look(option, path)
    }
    look(jsonSchema(), '')
    expect(missing).toEqual([])
  })

  test('labs/list.json matches the shipped labs', () => {
    expect(JSON.parse(readFileSync(listFile, 'utf8'))).toEqual(listOf(parseLab))
  })

  test('a shipped lab that is not as in labs/list.json is parsed', async () => {
    const parsed: string[] = []
    const parse = (text: string, file: string) => {
      parsed.push(basename(file))
      return parseLab(text, file)
    }
    await shippedLabs(() => Promise.resolve(parse))
    expect(parsed).toEqual([])
    const { iscsi, ...others } = listOf(parseLab)
    const changed = { ...others, iscsi: { ...iscsi!, digest: 'another' } }
    parsed.length = 0
    expect(await shippedLabs(() => Promise.resolve(parse), changed)).toEqual(shipped)
    expect(parsed).toEqual(['iscsi.yaml'])
  })

  test('the shipped labs use only YAML on which all parsers agree', () => {
    for (const { file } of shipped) {
      const text = readFileSync(file, 'utf8')
      expect(parse(text, { version: '1.1' })).toEqual(parse(text))
    }
  })
})
