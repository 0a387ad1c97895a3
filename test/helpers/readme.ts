/** The command blocks of README.md and README.ja.md, which readers will type. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export interface Block {
  /** The name in the comment above it, `<!-- test: NAME -->`; undefined: it has none. */
  readonly name: string | undefined
  readonly script: string
}

/** @param file path from the root of the repository */
export const blocksOf = (file: string): readonly Block[] => {
  const text = readFileSync(fileURLToPath(new URL(`../../${file}`, import.meta.url)), 'utf8')
  return [...text.matchAll(/(?:<!-- test: ([a-z-]+) -->\n\n)?^```sh\n([^]*?)^```$/gm)].map(
    ([, name, script = '']) => ({ name, script }),
  )
}

/** The commands of a block of README.md, as a shell script that ends with the first failure. */
export const readmeBlock = (name: string): string => {
  const block = blocksOf('README.md').find((one) => one.name === name)
  if (!block) throw new Error(`README.md has no block ${name}`)
  return `set -e\n${block.script}`
}
