/** Functions with which tests read documents. */

/** The text below a heading, up to the next heading. */
export const section = (text: string, heading: string): string => {
  const [, found] = new RegExp(`^## ${heading}\n([^]*?)(?=^## |$(?![^]))`, 'm').exec(text) ?? []
  if (found === undefined) throw new Error(`no section ${heading}`)
  return found
}

/** The cells of the rows of a section's tables, without head and rule. */
export const rows = (text: string): readonly (readonly string[])[] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) =>
      line
        .replaceAll('\\|', '\0')
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.replaceAll('\0', '|').trim()),
    )
    .slice(1)

/** Words in backticks. */
export const code = (text: string): readonly string[] =>
  [...text.matchAll(/`([^`\n]+)`/g)].map(([, word = '']) => word)
