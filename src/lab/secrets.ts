import type { Lab } from './lab.js'

/**
 * Everything of a lab file that is for nobody's eyes, wherever in it: passwords, and the names that CHAP asks for
 * with them. The name of a database's user is none: it is shown to those who shall use it.
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
