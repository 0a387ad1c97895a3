/** The provider that a lab was brought up with, as recorded in its folder. */
import { existsSync } from 'node:fs'
import type { LabId } from '../identity.js'
import { exitCodes, LabError } from '../error.js'
import type { Lab, ProviderName } from '../lab/lab.js'
import type { Provider } from '../provider/provider.js'
import { chooseProvider, providerNamed } from '../provider/load.js'
import { providerEntry, providerNames } from '../providers.js'
import { pathsOf, readIfThere, writePrivate } from '../state.js'

const providerFile = (lab: LabId): string => pathsOf(lab).provider

/** The name of the provider that a lab was brought up with; undefined if it is not up. */
export const providerNameInUse = async (lab: LabId): Promise<ProviderName | undefined> => {
  const path = providerFile(lab)
  const text = await readIfThere(path)
  if (text === undefined) return undefined
  const name = providerNames.find((each) => each === text.trim())
  if (name === undefined)
    throw new LabError('bad-state', `${path} should name the provider of ${lab.name}, but does not`, {
      hint: `lab down ${lab.name}`,
      log: path,
    })
  return name
}

const forLab = async (provider: Provider, lab: LabId): Promise<Provider> =>
  provider.forLab ? provider.forLab(lab) : provider

/** The provider that a lab was brought up with; undefined if it is not up. */
export const providerInUse = async (lab: LabId): Promise<Provider | undefined> => {
  const name = await providerNameInUse(lab)
  return name && forLab(await providerNamed(name), lab)
}

/**
 * The provider whose lab `down` ends. If its record is missing or damaged, the records of what existed before the lab
 * tell: machines or a cluster that `lab` did not make must be given back, not forgotten.
 * @returns undefined: it may be any that makes its own machines
 */
export const providerToEnd = async (lab: LabId): Promise<Provider | undefined> => {
  const recorded = await providerNameInUse(lab).catch((error: unknown) => {
    if (error instanceof LabError && ['bad-state', 'system-eisdir'].includes(error.code)) return undefined
    throw error
  })
  const { hosts, cluster } = pathsOf(lab)
  const name = recorded ?? (existsSync(hosts) ? 'hosts' : existsSync(cluster) ? 'cluster' : undefined)
  return name && forLab(await providerNamed(name), lab)
}

/**
 * For an option that names something that exists already, which no other provider can use.
 * @param asked the provider that was requested; default: the one in use
 * @throws LabError `other-provider`
 */
export const refuseOtherProvider = async (
  lab: LabId,
  only: ProviderName,
  option: '--hosts' | '--kubeconfig',
  asked: ProviderName | undefined,
): Promise<void> => {
  const inUse = await providerNameInUse(lab)
  const other = asked ?? inUse ?? only
  if (other === only) return
  throw new LabError(
    'other-provider',
    `${option} names ${option === '--hosts' ? 'machines that exist' : 'a cluster that exists'} already, but ${other} makes its own`,
    {
      hint: inUse ? `lab down ${lab.name}` : `use either ${option} FILE or --provider NAME`,
      exitCode: exitCodes.usage,
    },
  )
}

/** The provider for `up`: the one in use, or the requested one, or the first that works. */
export const providerForUp = async (
  lab: Lab,
  requested: ProviderName | undefined,
  signal: AbortSignal,
): Promise<Provider> => {
  const inUse = await providerInUse(lab)
  const asked = requested ?? lab.provider
  if (inUse && asked && inUse.name !== asked)
    throw new LabError('other-provider', `${lab.name} was brought up with ${inUse.name}, not ${asked}`, {
      hint: `lab down ${lab.name}`,
      exitCode: exitCodes.usage,
    })
  if (lab.box !== undefined && asked !== undefined && !providerEntry(asked).boxes)
    throw new LabError('other-provider', `${asked} does not make machines of a box, such as ${lab.box}`, {
      hint: `lab up with --provider ${lab.provider ?? 'virtualbox'}, or without box: in ${lab.file}`,
      exitCode: exitCodes.usage,
    })
  return inUse ?? forLab(await chooseProvider(asked, lab, signal), lab)
}

export const rememberProvider = (lab: Lab, provider: Provider): Promise<void> =>
  writePrivate(providerFile(lab), `${provider.name}\n`)

const notUp = ({ name }: LabId): LabError =>
  new LabError('not-up', `${name} is not up`, { hint: `lab up ${name}`, exitCode: exitCodes.failed })

/** @throws LabError `not-up` with the command that brings the lab up */
export const providerOf = async (lab: LabId): Promise<Provider> => {
  const provider = await providerInUse(lab)
  if (!provider) throw notUp(lab)
  return provider
}

/** For commands that need a lab which is up, but not its provider, whose code takes long to load. */
export const refuseNotUp = async (lab: LabId): Promise<void> => {
  if ((await providerNameInUse(lab)) === undefined) throw notUp(lab)
}
