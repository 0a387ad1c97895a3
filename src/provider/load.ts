/** Loads providers. Each is loaded when it is first needed, since loading its dependencies takes half a second. */
import { LabError } from '../error.js'
import type { Lab, ProviderName } from '../lab/lab.js'
import { providerEntry, providerNames } from '../providers.js'
import type { Provider } from './provider.js'

interface ProviderModule {
  readonly makeProvider: (name: ProviderName) => Provider
}

const loaded = new Map<ProviderName, Promise<Provider>>()

const load = async (name: ProviderName): Promise<Provider> => {
  const path = `./${providerEntry(name).module}.js`
  return ((await import(/* @vite-ignore */ path)) as ProviderModule).makeProvider(name)
}

export const providerNamed = (name: ProviderName): Promise<Provider> => {
  let provider = loaded.get(name)
  if (!provider) {
    provider = load(name)
    loaded.set(name, provider)
  }
  return provider
}

export const allProviders = (): Promise<readonly Provider[]> => Promise.all(providerNames.map(providerNamed))

/** The provider requested on the command line, else in the lab file, else the first that works here. */
export const chooseProvider = async (
  asked: ProviderName | undefined,
  lab: Pick<Lab, 'provider'>,
  signal: AbortSignal,
): Promise<Provider> => {
  const name = asked ?? lab.provider
  if (name) return providerNamed(name)
  for (const each of providerNames) {
    const provider = await providerNamed(each)
    if ((await provider.probe(signal)).usable) return provider
  }
  throw new LabError('no-provider', 'no provider works on this host', { hint: 'lab doctor', exitCode: 3 })
}
