/** Problems of hosts that show only when they are compared with each other. */
import { hostNumber, parseAddress, parseSubnet, subnetText } from '../../lab/address.js'
import { type Lab, machinesWith, nodesOf } from '../../lab/lab.js'
import { type Asked, type Finding, interfaceOf, type Level, subnetOf } from './asked.js'

/** An earlier host that is the same machine. Cloned cards have one machine-id, but each board its own network card. */
const twinOf = (asked: Asked, all: readonly Asked[]): Asked | undefined =>
  all
    .slice(0, all.indexOf(asked))
    .find(
      (other) =>
        other.facts.machineId === asked.facts.machineId &&
        interfaceOf(other)?.mac !== undefined &&
        interfaceOf(other)?.mac === interfaceOf(asked)?.mac,
    )

/** What no two hosts may have in common, with what to do about it. */
const unique: readonly {
  readonly what: string
  readonly of: (asked: Asked) => string | undefined
  readonly level: Level
  readonly fix: string
}[] = [
  {
    what: 'machine-id',
    of: ({ facts }) => facts.machineId,
    level: 'refuse',
    fix: 'if a card was cloned: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot. If both are one machine with two addresses: use another host',
  },
  {
    what: 'MAC address',
    of: (asked) => interfaceOf(asked)?.mac,
    level: 'refuse',
    fix: 'ip link; give one of the two another address',
  },
  {
    what: 'address',
    of: (asked) => interfaceOf(asked)?.address,
    level: 'refuse',
    fix: 'set interface: in hosts.yaml, if both have one behind the same router',
  },
  {
    what: 'SSH host key',
    of: ({ spec }) => spec.hostKey,
    level: 'warn',
    fix: 'if a card was cloned: rm /etc/ssh/ssh_host_*; ssh-keygen -A; then run lab hosts check again',
  },
  {
    what: 'host name',
    of: ({ facts }) => facts.hostname,
    level: 'change',
    fix: 'each will get the name of its machine',
  },
]

function* sharedValues(hosts: readonly Asked[]): Generator<Finding> {
  for (const { what, of, level, fix } of unique) {
    const first = new Map<string, string>()
    for (const asked of hosts) {
      const value = of(asked)
      if (value === undefined || value === '') continue
      const other = first.get(value)
      if (other === undefined) first.set(value, asked.spec.name)
      else yield { host: asked.spec.name, what, level, saw: `${other} has the same: ${value}`, fix }
    }
  }
}

/** The networks of the hosts, as the cluster of a lab needs them. */
function* networks(hosts: readonly Asked[], lab: Lab): Generator<Finding> {
  const { endpoint } = lab.kubernetes ?? {}
  const shared = hosts.find(({ spec }) =>
    machinesWith(lab, 'control-plane').some(({ name }) => name === spec.name),
  )
  const around = shared && parseSubnet(subnetOf(shared) ?? '')
  const moving = endpoint === undefined ? undefined : parseAddress(endpoint)
  if (shared && around && moving !== undefined && hostNumber(around, moving) === undefined)
    yield {
      host: shared.spec.name,
      what: 'network',
      level: 'refuse',
      saw: `the API server's address ${endpoint ?? ''}, which the control planes share, is not in its network ${subnetText(around)}`,
      fix: `set network: { subnet: ${subnetText(around)} } in the lab file, and a free address of it in kubernetes: { endpoint: … }`,
    }
  // A route to the pods of a node leads over that node's address, which must be in the same network.
  const nodes = hosts.filter(({ spec }) => nodesOf(lab).some(({ name }) => name === spec.name))
  const [first] = nodes
  for (const node of nodes.slice(1)) {
    const subnet = first && parseSubnet(subnetOf(first) ?? '')
    const address = parseAddress(interfaceOf(node)?.address ?? '')
    if (first && subnet && address !== undefined && hostNumber(subnet, address) === undefined)
      yield {
        host: node.spec.name,
        what: 'network',
        level: 'refuse',
        saw: `${interfaceOf(node)?.address ?? ''} is not in the network of ${first.spec.name}, ${subnetText(subnet)}: pods on the two could not reach each other`,
        fix: 'set interface: to one network on both, in hosts.yaml',
      }
  }
}

/** @param lab whose nodes must be in one network; undefined: any lab */
export function* together(all: readonly Asked[], lab: Lab | undefined): Generator<Finding> {
  for (const asked of all) {
    const twin = twinOf(asked, all)
    if (twin)
      yield {
        host: asked.spec.name,
        what: 'host',
        level: 'refuse',
        saw: `it is the same machine as ${twin.spec.name}: one host can be only one machine, because both would have its name and its ports`,
        fix: `use another host for ${asked.spec.name}`,
      }
  }
  const hosts = all.filter((asked) => twinOf(asked, all) === undefined)
  yield* sharedValues(hosts)
  if (lab) yield* networks(hosts, lab)
}
