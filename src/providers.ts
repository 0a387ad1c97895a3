/**
 * The list of all providers, in the order in which they are tried when none was chosen. To add a provider, add its
 * module and one entry here. This file imports nothing: the command line and the schema read it at every start, and a
 * provider's own code is loaded when it is first used.
 */
interface ProviderEntry {
  /** Its module below src/provider, without the extension: it exports `makeProvider(name): Provider`. */
  readonly module: string
  /**
   * Where its machines get Kubernetes from: lab builds one version, packages exist for each supported version, or it
   * exists already, in any version.
   */
  readonly kubernetes: 'built' | 'packages' | 'given'
  /** Whether programs in the lab can use the machines' power switches through Redfish. */
  readonly powerSwitches?: boolean
  /** Whether its machines can be made of any box of Vagrant. */
  readonly boxes?: boolean
  /** The most LUNs that one of its machines can serve. Absent: any number. */
  readonly mostLuns?: number
}

export const providers = {
  // User-Mode Linux has 16 disks, of which two are the machine's own.
  uml: { module: 'uml/uml', kubernetes: 'built', powerSwitches: true, mostLuns: 14 },
  libvirt: { module: 'vagrant/vagrant', kubernetes: 'packages', boxes: true },
  // The controller that lab adds to a VirtualBox machine has 30 ports.
  virtualbox: { module: 'vagrant/vagrant', kubernetes: 'packages', boxes: true, mostLuns: 30 },
  // Machines that exist already; they are used only if the user names them.
  hosts: { module: 'hosts/hosts', kubernetes: 'built' },
  // An existing cluster; it is used only if the user names it.
  cluster: { module: 'cluster/cluster', kubernetes: 'given' },
} as const satisfies Readonly<Record<string, ProviderEntry>>

export type ProviderName = keyof typeof providers

export const providerNames = Object.keys(providers) as [ProviderName, ...ProviderName[]]

export const providerEntry = (name: ProviderName): ProviderEntry => providers[name]
