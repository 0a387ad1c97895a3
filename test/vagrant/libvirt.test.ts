/** A lab on libvirt, as a user sees it: the built command line, the real Vagrant and libvirtd, emulated machines. */
import { mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { afterAll, describe, expect, test } from 'vitest'
import type { ReportJson } from '../../src/plan/report.js'
import { cli } from '../helpers/cli.js'

const folder = mkdtempSync(join('/var/tmp', 'lab-libvirt-'))
const env = { LAB_STATE: join(folder, 'state'), LAB_EMULATE: '1', NO_COLOR: '1' }
afterAll(() => rm(folder, { recursive: true, force: true }))

const lab = async (...args: readonly string[]) => {
  const { exitCode, stdout, stderr } = await execa(process.execPath, [cli, ...args], {
    env,
    reject: false,
    stdin: 'ignore',
    cwd: folder,
  })
  return { exitCode, stdout, stderr }
}
const json = async <T>(...args: readonly string[]): Promise<T> => {
  const { exitCode, stdout, stderr } = await lab(...args, '-o', 'json')
  if (exitCode !== 0) throw new Error(`lab ${args.join(' ')}: exit code ${exitCode}\n${stdout}\n${stderr}`)
  return JSON.parse(stdout) as T
}
const virsh = async (...args: readonly string[]): Promise<readonly string[]> =>
  (await execa('virsh', ['--connect', 'qemu:///system', '--quiet', ...args])).stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')

interface Status {
  readonly up: boolean
  readonly provider: string
  readonly machines: readonly { readonly name: string; readonly status: string }[]
}

const changed = ({ results }: ReportJson): readonly string[] =>
  results.filter(({ outcome }) => outcome === 'changed').map(({ step }) => step)
const good = ({ results }: ReportJson): boolean =>
  results.length > 0 && results.every(({ checks }) => checks.length > 0 && checks.every(({ ok }) => ok))

/** Figures for people; nothing here passes or fails by time. */
const note = (what: string, since: number): void => {
  console.log(`${what}: ${((performance.now() - since) / 1000).toFixed(1)} s`)
}

/** The tests are one story: each begins where the one before it ended. */
const story = (name: string): void => {
  const victim = name === 'iscsi' ? 'initiator' : 'worker1'

  test('lab up brings the lab up with every check passed', async () => {
    const begun = performance.now()
    const report = await json<ReportJson>('up', name, '--provider', 'libvirt')
    note(`up ${name}`, begun)
    expect(good(report)).toBe(true)
    expect(changed(report)).toContain(`boot-${victim}`)
  })

  test('the domains in libvirt match the lab file', async () => {
    const status = await json<Status>('status', name)
    expect(status).toMatchObject({ up: true, provider: 'libvirt' })
    const domains = await virsh('list', '--name')
    expect([...domains].sort()).toEqual(
      status.machines.map((machine) => `lab_${name}_${machine.name}`).sort(),
    )
  })

  test('lab status is faster than vagrant status', async () => {
    const time = async (work: () => Promise<unknown>): Promise<number> => {
      const took: number[] = []
      for (let run = 0; run < 5; run++) {
        const begun = performance.now()
        await work()
        took.push(performance.now() - begun)
      }
      return took.sort((a, b) => a - b)[2]!
    }
    const ours = await time(() => lab('status', name))
    const theirs = await time(() => execa('vagrant', ['status'], { cwd: join(env.LAB_STATE, name), env }))
    console.log(
      `lab status ${ours.toFixed(0)} ms, vagrant status ${theirs.toFixed(0)} ms: ${(theirs / ours).toFixed(1)} times`,
    )
    expect(ours).toBeLessThan(theirs)
  })

  test('lab up changes nothing the second time', async () => {
    expect(changed(await json<ReportJson>('up', name))).toEqual([])
  })

  test('lab up recovers from a power cut', async () => {
    const cut = performance.now()
    await virsh('destroy', `lab_${name}_${victim}`)
    expect((await json<Status>('status', name)).machines).toContainEqual(
      expect.objectContaining({
        name: victim,
        status: 'stopped',
        detail: expect.stringContaining('power was cut'),
      }),
    )
    const begun = performance.now()
    const report = await json<ReportJson>('up', name)
    note(`up ${name} after a power cut of ${victim}`, begun)
    expect(good(report)).toBe(true)
    // However it was booted: a fenced worker is switched on before the steps begin.
    const { stdout } = await lab('ssh', name, victim, 'cat', '/proc/uptime')
    const uptime = Number.parseFloat(stdout)
    expect(uptime).toBeGreaterThan(0)
    expect(uptime).toBeLessThan((performance.now() - cut) / 1000)
  })

  test('lab stop and lab start keep the disks', async () => {
    let begun = performance.now()
    await json('stop', name)
    note(`stop ${name}`, begun)
    expect(await virsh('list', '--name')).toEqual([])
    expect(await virsh('net-list', '--name')).not.toContain(`lab_${name}`)
    begun = performance.now()
    expect(good(await json<ReportJson>('start', name))).toBe(true)
    note(`start ${name}, to verified`, begun)
  })

  test('lab down leaves nothing behind', async () => {
    const begun = performance.now()
    expect(await json('down', name)).toMatchObject({ existed: true, left: [] })
    note(`down ${name}`, begun)
    expect(await virsh('list', '--all', '--name')).toEqual([])
    expect((await virsh('net-list', '--all', '--name')).filter((each) => each.startsWith('lab_'))).toEqual([])
    // The copy of the box stays, as Vagrant intends: the next machine uses it.
    expect(
      (await virsh('vol-list', 'default')).filter((each) => !each.includes('vagrant_box_image')),
    ).toEqual([])
    const processes = (await execa('ps', ['-eo', 'args'])).stdout.split('\n')
    expect(processes.filter((line) => /qemu-system|lab_/.test(line))).toEqual([])
    const { stdout } = await execa('vagrant', ['global-status', '--prune'])
    expect(stdout).toContain('There are no active Vagrant environments')
  })
}

describe('lab iscsi on libvirt', () => story('iscsi'))

describe.skipIf(process.env['LAB_TEST_LONG'] !== '1')('lab iscsi-ha on libvirt', () => story('iscsi-ha'))
