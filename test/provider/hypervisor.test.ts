/**
 * What the provider does when virsh or VBoxManage cannot answer. The programs are stand-ins, because the real ones
 * cannot be made to fail at a chosen question.
 */
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import type { Lab } from '../../src/lab/lab.js'
import { dotVagrant, type Hypervisor, memoryOf } from '../../src/provider/vagrant/hypervisor.js'
import { libvirt } from '../../src/provider/vagrant/libvirt.js'
import { vagrantProvider } from '../../src/provider/vagrant/vagrant.js'
import { virtualbox } from '../../src/provider/vagrant/virtualbox.js'
import { loadLab } from '../../src/registry.js'
import { pathsOf } from '../../src/state.js'
import { onlyPrograms, setEnvironment, temporaryFolder } from './vagrant-tools.js'

const golden = join(import.meta.dirname, '..', 'golden', 'virsh', 'machines.txt')

/** The answers to the questions that `leftovers` asks about a lab named demo, by the first argument that matters. */
const answers = {
  libvirt: `
case "$*" in
  *domstats*) exec /bin/cat '${golden}' ;;
  *net-list*) echo lab_demo ;;
  *net-info*) echo 'Active: yes'; echo 'Bridge: virbr7' ;;
  *pool-list*) echo default ;;
  *vol-list*) echo ' lab_demo_on.img /var/lib/libvirt/images/lab_demo_on.img' ;;
esac`,
  virtualbox: `
case "$*" in
  'list vms') echo '"lab_demo_on" {0b0e7a5c-0000-4000-8000-000000000001}' ;;
  showvminfo*) echo 'VMState="running"'; echo 'memory=512'; echo 'cpus=1' ;;
  'list hdds') echo 'UUID: 7'; echo "Location: $LAB_STATE/demo/.vagrant/disks/on-0.vdi" ;;
esac`,
} as const

const kinds = [
  {
    kind: 'libvirt',
    hypervisor: libvirt,
    program: 'virsh',
    words: 'error: failed to connect to the hypervisor',
    silent: 'libvirt-silent',
    question: 'domstats',
  },
  {
    kind: 'virtualbox',
    hypervisor: virtualbox,
    program: 'VBoxManage',
    words: 'VBoxManage: error: Failed to create the VirtualBox object!',
    silent: 'provider-failed',
    question: 'list vms',
  },
] as const

/** Every call is logged; the one with these arguments fails. */
const failingAt = (args: string, log: string, failure: string, body: string): string =>
  `echo "$*" >> '${log}'
[ "$*" != '${args}' ] || { ${failure}; }
${body}`

describe.each(kinds)(
  'when $program does not answer',
  ({ kind, hypervisor, program, words, silent, question }) => {
    const failure = `echo '${words}' >&2; exit 1`
    const demo = { name: 'demo' }
    let lab: Lab
    beforeEach(async () => {
      setEnvironment({ LAB_STATE: await temporaryFolder() })
      lab = { ...(await loadLab('iscsi')), name: 'demo' }
    })

    const asked: readonly { what: string; ask: (of: Hypervisor) => Promise<unknown> }[] = [
      { what: 'which machines there are', ask: (of) => of.machines(demo) },
      { what: 'what is left of the lab', ask: (of) => of.leftovers(demo) },
      { what: 'whether the network exists', ask: (of) => of.network(lab) },
      { what: 'the end of the lab', ask: (of) => of.destroy(demo) },
      { what: 'a power cut', ask: (of) => of.cut(demo, 'on') },
      { what: 'a pause', ask: (of) => of.pause(demo, 'on') },
      { what: 'the removal of a machine', ask: (of) => of.remove(demo, 'on') },
    ]
    test.each(asked)('$what is an error, not an answer that there is nothing', async ({ ask }) => {
      await onlyPrograms({ [program]: failure })
      await expect(ask(hypervisor)).rejects.toMatchObject({
        code: silent,
        message: expect.stringContaining(`${program} says: ${words}`),
      })
    })

    test('leftovers are an error whichever of the questions fails', async () => {
      const log = join(await temporaryFolder(), 'calls')
      const looked = async (failing: string) => {
        await onlyPrograms({ [program]: failingAt(failing, log, failure, answers[kind]) })
        return hypervisor.leftovers(demo)
      }
      expect((await looked('none')).length).toBeGreaterThan(1)
      const calls = new Set((await readFile(log, 'utf8')).trimEnd().split('\n'))
      expect(calls.size).toBeGreaterThan(2)
      for (const call of calls)
        await expect(looked(call), call).rejects.toMatchObject({ message: expect.stringContaining(words) })
    })

    test('a program that is not installed has nothing of a lab that was not made with it', async () => {
      await onlyPrograms({})
      expect(await hypervisor.machines(demo)).toEqual([])
      expect(await hypervisor.leftovers(demo)).toEqual([])
    })

    test('a program that was removed since the lab was made is an error that names it', async () => {
      await mkdir(memoryOf(demo, kind, 'on'), { recursive: true })
      await writeFile(join(memoryOf(demo, kind, 'on'), 'id'), 'some-id')
      await onlyPrograms({})
      for (const ask of [() => hypervisor.machines(demo), () => hypervisor.leftovers(demo)])
        await expect(ask()).rejects.toMatchObject({
          code: 'no-program',
          message: expect.stringContaining(`${program} is not installed`),
          hint: expect.stringContaining(dotVagrant(demo)),
        })
    })

    test('the end of a lab fails and keeps its folder, which has the keys and records of its machines', async () => {
      await mkdir(pathsOf(demo).root, { recursive: true })
      await onlyPrograms({ [program]: failure })
      await expect(vagrantProvider(kind).destroy(demo)).rejects.toMatchObject({ code: silent })
      expect(existsSync(pathsOf(demo).root)).toBe(true)
    })

    test('a machine whose record cannot be read is not taken for unfinished and made anew', async () => {
      const removed = join(await temporaryFolder(), 'removed')
      // A folder instead of the file with the id: the superuser can read any file.
      await mkdir(join(memoryOf(demo, kind, 'on'), 'id'), { recursive: true })
      await onlyPrograms({
        [program]: `case "$*" in *${question.split(' ')[0] ?? ''}*|show*) ;; *) echo "$*" >> '${removed}' ;; esac
${answers[kind]}`,
      })
      const machine = { ...lab.machines[0]!, name: 'on' }
      await expect(vagrantProvider(kind).machines!.start(lab, machine, [])).rejects.toMatchObject({
        code: 'EISDIR',
      })
      expect(existsSync(removed)).toBe(false)
    })
  },
)

test('a machine of VirtualBox that is removed while its state is asked for is left out', async () => {
  setEnvironment({ LAB_STATE: await temporaryFolder() })
  const gone = join(await temporaryFolder(), 'gone')
  await onlyPrograms({
    VBoxManage: `case "$*" in
  'list vms') [ -e '${gone}' ] || echo '"lab_demo_on" {0b0e7a5c-0000-4000-8000-000000000001}' ;;
  showvminfo*) : > '${gone}'; echo 'Could not find a registered machine' >&2; exit 1 ;;
esac`,
  })
  expect(await virtualbox.machines({ name: 'demo' })).toEqual([])
})

describe('a machine counts as off only in a state in which it cannot write', () => {
  const demo = { name: 'demo' }

  test.each([
    { state: 1, on: true },
    { state: 3, on: true },
    { state: 4, on: true },
    { state: 5, on: false },
    { state: 6, on: false },
    // Suspended by its own guest.
    { state: 7, on: true },
    { state: 0, on: true },
  ])('libvirt reports the state $state: it may run: $on', async ({ state, on }) => {
    setEnvironment({ LAB_STATE: await temporaryFolder() })
    await onlyPrograms({
      virsh: `echo "Domain: 'lab_demo_on'"; echo '  state.state=${String(state)}'; echo /; echo /`,
    })
    expect(await libvirt.machines(demo)).toMatchObject([{ name: 'on', running: on }])
  })

  test.each([
    { state: 'running', on: true },
    { state: 'paused', on: true },
    { state: 'saving', on: true },
    { state: 'onlinesnapshotting', on: true },
    { state: 'restoring', on: true },
    { state: 'poweroff', on: false },
    { state: 'aborted', on: false },
    { state: 'saved', on: false },
    { state: 'gurumeditation', on: false },
  ])('VirtualBox reports the state $state: it may run: $on', async ({ state, on }) => {
    setEnvironment({ LAB_STATE: await temporaryFolder() })
    await onlyPrograms({
      VBoxManage: `case "$*" in
  'list vms') echo '"lab_demo_on" {0b0e7a5c-0000-4000-8000-000000000001}' ;;
  *) echo 'VMState="${state}"' ;;
esac`,
    })
    expect(await virtualbox.machines(demo)).toMatchObject([{ name: 'on', running: on }])
  })
})
