/** Problems of hosts that show only when they are compared with each other. */
import { hostNumber, parseAddress, parseSubnet, subnetText } from '../../lab/address.js'
import { type Lab, machinesWith, nodesOf } from '../../lab/lab.js'
import { type Asked, type Finding, interfaceOf, type Level, subnetOf } from './asked.js'

/** @param lab whose nodes must be in one network; undefined: any lab */
export function* together(all: readonly Asked[], lab: Lab | undefined): Generator<Finding> {
  // Cloned cards have one machine-id, but each board has its own network card.
  const twinOf = (asked: Asked): Asked | undefined =>
    all
      .slice(0, all.indexOf(asked))
      .find(
        (other) =>
          other.facts.machineId === asked.facts.machineId &&
          interfaceOf(other)?.mac !== undefined &&
          interfaceOf(other)?.mac === interfaceOf(asked)?.mac,
      )
  for (const asked of all) {
    const twin = twinOf(asked)
    if (twin)
      yield {
        host: asked.spec.name,
        what: 'host',
        level: 'refuse',
        saw: `it is the same machine as ${twin.spec.name}: one host can be only one machine, because both would have its name and its ports`,
        fix: `use another host for ${asked.spec.name}`,
      }
  }
  const hosts = all.filter((asked) => twinOf(asked) === undefined)
  const same = function* (
    what: string,
    of: (asked: Asked) => string | undefined,
    level: Level,
    fix: (value: string) => string,
  ): Generator<Finding> {
    const first = new Map<string, string>()
    for (const asked of hosts) {
      const value = of(asked)
      if (value === undefined || value === '') continue
      const other = first.get(value)
      if (other === undefined) first.set(value, asked.spec.name)
      else
        yield {
          host: asked.spec.name,
          what,
          level,
          saw: `${other} has the same: ${value}`,
          fix: fix(asked.spec.name),
        }
    }
  }
  yield* same(
    'machine-id',
    ({ facts }) => facts.machineId,
    'refuse',
    () =>
      'if a card was cloned: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot. If both are one machine with two addresses: use another host',
  )
  yield* same(
    'MAC address',
    (asked) => interfaceOf(asked)?.mac,
    'refuse',
    () => 'ip link; give one of the two another address',
  )
  yield* same(
    'address',
    (asked) => interfaceOf(asked)?.address,
    'refuse',
    () => 'set interface: in hosts.yaml, if both have one behind the same router',
  )
  yield* same(
    'SSH host key',
    ({ spec }) => spec.hostKey,
    'warn',
    () => 'if a card was cloned: rm /etc/ssh/ssh_host_*; ssh-keygen -A; then run lab hosts check again',
  )
  yield* same(
    'host name',
    ({ facts }) => facts.hostname,
    'change',
    () => 'each will get the name of its machine',
  )
  if (!lab) return
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
