/** What a host is, and what its kernel can do: whether a lab can use it at all. */
import { type Lab, type MachineSpec, nfsServerOf, nodesOf } from '../../lab/lab.js'
import { imagesUsedOn } from '../../lab/images.js'
import { anyOf } from '../../lab/suggest.js'
import { whyNotFor } from '../../parts/nodes.js'
import type { Asked, Finding } from './asked.js'
import { memoryFix } from './boot-line.js'
import type { KernelFeature } from './facts.js'

/** Findings about one host. */
export type Found = Generator<Omit<Finding, 'host'>>

/** What a host will be. */
export interface Place {
  /** Undefined: a machine of any lab. */
  readonly lab: Lab | undefined
  readonly machine: MachineSpec | undefined
  readonly isNode: boolean
}

export const placeIn = ({ spec }: Asked, lab: Lab | undefined): Place => {
  const machine = lab?.machines.find(({ name }) => name === spec.name)
  return {
    lab,
    machine,
    isNode: lab !== undefined && machine !== undefined && nodesOf(lab).includes(machine),
  }
}

/** The supported releases, by the id of os-release; the 64-bit Raspberry Pi OS calls itself debian. */
const systems: Readonly<Record<string, readonly string[]>> = {
  debian: ['12', '13'],
  ubuntu: ['22.04', '24.04', '24.10', '25.04', '25.10', '26.04'],
}

/** The processor, the distribution, and its pages. */
export function* system({ facts, spec }: Asked, { lab, machine, isNode }: Place): Found {
  const { architecture, system } = facts
  const images = lab && machine ? imagesUsedOn(lab, machine) : []
  if (facts.model !== '') yield { what: 'model', level: 'ok', saw: facts.model }
  if (architecture === 'armhf' && facts.machine === 'aarch64')
    yield {
      what: 'architecture',
      level: 'refuse',
      saw: 'a 64-bit kernel with 32-bit programs (armhf): Kubernetes has had no 32-bit arm since 1.27',
      fix: 'install the 64-bit Raspberry Pi OS (Raspberry Pi Imager, Other, 64-bit)',
    }
  else if (architecture !== 'amd64' && architecture !== 'arm64')
    yield {
      what: 'architecture',
      level: 'refuse',
      saw: `${facts.machine}, ${architecture === '' ? 'without dpkg' : architecture}`,
      fix: 'use a 64-bit Debian, Ubuntu or Raspberry Pi OS, on amd64 or arm64',
    }
  else if (isNode && whyNotFor(architecture, images) !== undefined)
    yield {
      what: 'architecture',
      level: 'refuse',
      saw: `${architecture}, but ${whyNotFor(architecture, images) ?? ''}`,
      fix: `use another host for ${spec.name}, or run lab on a computer with ${architecture}`,
    }
  else yield { what: 'architecture', level: 'ok', saw: `${facts.machine}, ${architecture}` }
  if (facts.page > 4096)
    yield {
      what: 'page size',
      level: 'warn',
      saw: `pages of ${String(facts.page / 1024)} KiB: programs that were built for 4 KiB, such as some with jemalloc, do not start`,
      fix: 'set kernel=kernel8.img in /boot/firmware/config.txt, then reboot',
    }
  // The 32-bit edition of Raspberry Pi OS: its architecture is the reason.
  if (system.id === 'raspbian' && architecture === 'armhf') return
  const releases = systems[system.id]
  yield releases?.includes(system.version)
    ? { what: 'system', level: 'ok', saw: system.pretty }
    : {
        what: 'system',
        level: 'refuse',
        saw: system.pretty || 'no /etc/os-release',
        fix: `use Debian ${anyOf(systems['debian'] ?? [])}, Raspberry Pi OS (64 bit) of the same, or Ubuntu 22.04 to 26.04`,
      }
}

const needed = (lab: Lab, machine: MachineSpec): readonly KernelFeature[] => {
  const isNode = nodesOf(lab).includes(machine)
  return [
    ...(machine.role === 'target' ? (['target_core_mod', 'iscsi_target_mod', 'loop'] as const) : []),
    ...(machine.iqn === undefined ? [] : (['iscsi_tcp'] as const)),
    ...(machine.role === 'nfs' ? (['nfsd'] as const) : []),
    ...(nfsServerOf(lab) && isNode ? (['nfs4'] as const) : []),
    ...(isNode ? (['overlay', 'br_netfilter', 'nf_tables'] as const) : []),
  ]
}

/** What its kernel can do, and what it is used for by itself. */
export function* kernel({ facts }: Asked, { lab, machine, isNode }: Place): Found {
  if (facts.swap.length > 0 && isNode)
    yield {
      what: 'swap',
      level: 'change',
      saw: `${facts.swap.join(', ')}: will be switched off, also at boot`,
    }
  const memory = isNode || lab === undefined ? memoryFix(facts) : undefined
  if (memory?.by === 'lab')
    yield {
      what: 'cgroups',
      level: 'change',
      saw: `no memory controller, which the kubelet needs: ${memory.file} will get cgroup_enable=memory, and the machine will be restarted, now and when it is given back`,
      announced: true,
    }
  else if (memory)
    yield {
      what: 'cgroups',
      level: isNode ? 'refuse' : 'warn',
      saw: `no memory controller, which the kubelet needs: ${memory.why}`,
      fix: memory.fix,
    }
  const missing = lab && machine ? needed(lab, machine).filter((name) => !facts.features.includes(name)) : []
  if (missing.length > 0)
    yield {
      what: 'kernel',
      level: facts.monolithic ? 'warn' : 'refuse',
      saw: facts.monolithic
        ? `${facts.kernel} has no modules, and does not show ${missing.join(', ')} before first use`
        : `${facts.kernel} has no ${missing.join(', ')}`,
      fix: missing.includes('target_core_mod')
        ? "use another host for the target: Raspberry Pi's kernels have no LIO; on Ubuntu: apt-get install linux-modules-extra-$(uname -r)"
        : 'apt-get install linux-modules-extra-$(uname -r), or a newer kernel',
    }
}
