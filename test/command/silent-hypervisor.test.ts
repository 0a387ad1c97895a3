/**
 * What the command line says when virsh does not answer. It is a stand-in, because a libvirtd that runs cannot be made
 * to fail on demand.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { newDesk } from './cli.js'

const deskWithSilentLibvirt = async () => {
  const desk = newDesk()
  const bin = join(desk.here, 'bin')
  await mkdir(bin)
  await writeFile(
    join(bin, 'virsh'),
    '#!/bin/sh\necho "error: failed to connect to the hypervisor" >&2\nexit 1\n',
    { mode: 0o755 },
  )
  const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` }
  return { desk, lab: (...args: readonly string[]) => desk.lab(args, env) }
}

describe.concurrent('when libvirt does not answer', () => {
  test.each(['status', 'down', 'stop'])(
    'lab %s fails for a lab that was made with libvirt, instead of saying that it has no machines',
    async (verb) => {
      const { desk, lab } = await deskWithSilentLibvirt()
      await desk.madeBefore('iscsi', { provider: 'libvirt\n' })
      const ran = await lab(verb, 'iscsi')
      expect(ran.stderr).toMatch(
        /✖ .*libvirt does not answer; virsh says: .*\n +Hint: sudo systemctl enable --now libvirtd/,
      )
      expect(ran.stderr).not.toMatch(/defect of lab|^ +at /m)
      expect(ran.exitCode).toBe(1)
      expect(ran.stdout).not.toContain('nothing left')
      expect(desk.contents()).toContain('state/iscsi/provider')
    },
  )

  test('lab down ends a lab that was not made with libvirt, and says that libvirt was not asked', async () => {
    const { lab } = await deskWithSilentLibvirt()
    const ran = await lab('down', 'iscsi')
    expect(ran.stdout).toMatch(
      /^iscsi: was not up; nothing left.*\n +libvirt was not asked, .*libvirt does not answer/,
    )
    expect(ran).toMatchObject({ exitCode: 0, stderr: '' })
    expect(JSON.parse((await lab('down', 'iscsi', '-o', 'json')).stdout)).toMatchObject({
      left: [],
      notAsked: [{ provider: 'libvirt', hint: 'sudo systemctl enable --now libvirtd' }],
    })
  })

  test('lab down of an unknown lab says that libvirt, which was not asked, may have machines of it', async () => {
    const { lab } = await deskWithSilentLibvirt()
    const ran = await lab('down', 'nothere')
    expect(ran.stderr).toMatch(
      /^✖ no lab named nothere\n +Hint: lab list shows them\n +or, if libvirt, which does not answer, may have machines of nothere: sudo systemctl/,
    )
    expect(ran.exitCode).toBe(2)
  })
})
