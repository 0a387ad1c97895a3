/** What libvirt says of its domains, in words recorded from the real virsh 9.0; on real machines: test/vagrant. */
import { describe, expect, test } from 'vitest'
import { libvirt } from '../../src/provider/vagrant/libvirt.js'
import { onlyPrograms } from './vagrant-tools.js'

const domain = (name: string, ...values: readonly string[]): string =>
  [`Domain: '${name}'`, ...values.map((value) => `  ${value}`), '', ''].join('\n')

/** One virsh is asked all of it: its answers have `echo /` between them, which ends no line. */
const answer = `${domain('lab_demo_on', 'state.state=1', 'state.reason=1', 'balloon.maximum=524288', 'vcpu.maximum=1')}${domain(
  'lab_demo_still',
  'state.state=3',
  'state.reason=1',
  'balloon.maximum=1048576',
  'vcpu.maximum=2',
)}${domain('lab_demo_cut', 'state.state=5', 'state.reason=2', 'balloon.maximum=524288')}${domain(
  'lab_demo-two_on',
  'state.state=1',
)}/df1256e9-559a-48fa-9e05-bc66a97baaf1 lab_demo_on
5a21f3a5-2f2f-4a3c-8d51-4ac4d2a0a6b1 lab_demo_still
0a1b2c3d-2f2f-4a3c-8d51-4ac4d2a0a6b1 lab_demo_cut
1a1b2c3d-2f2f-4a3c-8d51-4ac4d2a0a6b1 lab_demo-two_on

/ 7   lab_demo_on       running
 9   lab_demo_still    paused
 10  lab_demo-two_on   running
`

describe('the machines of a lab', () => {
  test('are its domains, and no others', async () => {
    await onlyPrograms({ virsh: `/bin/cat << 'END'\n${answer}\nEND` })
    expect(await libvirt.machines({ name: 'demo' })).toEqual([
      {
        name: 'on',
        id: 'df1256e9-559a-48fa-9e05-bc66a97baaf1',
        running: true,
        detail: 'domain lab_demo_on, number 7',
        memory: 512 * 1024 ** 2,
        cpus: 1,
      },
      {
        name: 'still',
        id: '5a21f3a5-2f2f-4a3c-8d51-4ac4d2a0a6b1',
        running: true,
        paused: true,
        detail: 'domain lab_demo_still, number 9',
        memory: 1024 ** 3,
        cpus: 2,
      },
      {
        name: 'cut',
        id: '0a1b2c3d-2f2f-4a3c-8d51-4ac4d2a0a6b1',
        running: false,
        detail: 'its power was cut',
        memory: 512 * 1024 ** 2,
        cpus: undefined,
      },
    ])
  })

  test('are none where libvirt does not answer, or is not there', async () => {
    await onlyPrograms({ virsh: 'echo "error: failed to connect to the hypervisor" >&2; exit 1' })
    expect(await libvirt.machines({ name: 'demo' })).toEqual([])
    await onlyPrograms({})
    expect(await libvirt.machines({ name: 'demo' })).toEqual([])
  })
})
