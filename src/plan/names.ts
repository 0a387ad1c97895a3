/** A function that gives every name back as it is, or with a number where it was given before: `one`, `one-2`. */
export const numbering = (): ((name: string) => string) => {
  const taken = new Set<string>()
  return (name) => {
    let free = name
    for (let n = 2; taken.has(free); n++) free = `${name}-${String(n)}`
    taken.add(free)
    return free
  }
}
