import type { Lab } from './lab.js'

/**
 * Every secret in a lab file: passwords, and the CHAP names that go with them. The name of a database user is not a
 * secret, because users need to see it.
 */
export const secretsIn = (lab: Lab): readonly string[] => {
  const found = new Set<string>()
  const walk = (value: unknown, chap: boolean): void => {
    if (typeof value !== 'object' || value === null) return
    for (const [key, inner] of Object.entries(value)) {
      if (typeof inner === 'string' && (/password$/i.test(key) || (chap && /^user(name)?$/i.test(key))))
        found.add(inner)
      walk(inner, chap)
    }
  }
  walk(lab.targets, true)
  walk(lab.database, false)
  return [...found]
}
