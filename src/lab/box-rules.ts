/** The rules for machines that are made of any box. */
import { providerEntry, providerNames } from '../providers.js'
import { type DraftFile, type Found, lacks } from './draft.js'
import { anyOf } from './suggest.js'

export function* boxRules(file: DraftFile): Found {
  if (lacks(file, 'box')) return
  const able = providerNames.filter((name) => providerEntry(name).boxes)
  const { provider } = file
  // Without a provider, the first that works would be used, and it may not know boxes.
  if (lacks(file, 'provider') || (provider !== undefined && !able.includes(provider)))
    yield {
      path: ['box'],
      message: `only Vagrant's providers make machines of a box; write provider: ${anyOf(able)}`,
    }
}
