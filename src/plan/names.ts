/** Returns a function that makes names unique by adding a number to repeated ones: `one`, `one-2`. */
export const numbering = (): ((name: string) => string) => {
  const taken = new Set<string>()
  return (name) => {
    let free = name
    for (let n = 2; taken.has(free); n++) free = `${name}-${String(n)}`
    taken.add(free)
    return free
  }
}
