/** The words of an exercise in one language: Markdown, under headings that are ids. */

export const languages = ['en', 'ja'] as const
export type Language = (typeof languages)[number]

export interface StepWords {
  readonly title: string
  readonly task: string
  /** The expected result, in a sentence. */
  readonly awaited: string
  /** What to learn from it, shown once the step is done; empty if there is nothing. */
  readonly after: string
}

export interface Words {
  readonly title: string
  readonly introduction: string
  /** By step. */
  readonly steps: ReadonlyMap<string, StepWords>
  /** Texts of hints, choices and broken states, by id. */
  readonly said: ReadonlyMap<string, string>
}

interface Section {
  readonly id: string
  /** The text after the id: `## cut: Pull the plug`. */
  readonly title: string
  readonly text: string
  readonly line: number
}

/** Splits at headings of a level; lines in code blocks are not headings. */
const sectionsOf = (text: string, marks: string): readonly [before: string, ...Section[]] => {
  let fenced = false
  const parts: { head: string; lines: string[]; line: number }[] = [{ head: '', lines: [], line: 1 }]
  for (const [index, line] of text.split('\n').entries()) {
    if (line.startsWith('```')) fenced = !fenced
    if (!fenced && line.startsWith(`${marks} `))
      parts.push({ head: line.slice(marks.length + 1), lines: [], line: index + 1 })
    else parts.at(-1)?.lines.push(line)
  }
  const [before, ...sections] = parts
  return [
    before?.lines.join('\n') ?? '',
    ...sections.map(({ head, lines, line }): Section => {
      const [, id = head, title = ''] = /^([a-z0-9-]+)(?::\s*(.*))?$/.exec(head.trim()) ?? []
      return { id, title, text: lines.join('\n'), line }
    }),
  ]
}

/** What a file lacks or has too much of, as sentences, each with its line if there is one. */
export interface WordProblem {
  readonly line?: number
  readonly message: string
}

/** Reads the words. @param steps ids of the steps, in order @param ids of all texts that do not belong to a step */
export const readWords = (
  markdown: string,
  steps: readonly string[],
  ids: readonly string[],
): { readonly words: Words; readonly problems: readonly WordProblem[] } => {
  const [, top] = sectionsOf(markdown, '#')
  const [introduction, ...sections] = sectionsOf(top?.text ?? '', '##')
  const problems: WordProblem[] = []
  if (!top) problems.push({ message: 'has no title; expected a first line such as: # Pull the plug' })
  const title = top ? (top.title === '' ? top.id : `${top.id}: ${top.title}`) : ''
  const found = new Map(sections.map((section) => [section.id, section]))
  const at = (section: Section): number => section.line + (top?.line ?? 0)
  const twice = sections.find(({ id }, index) => sections.findIndex((other) => other.id === id) !== index)
  if (twice) problems.push({ line: at(twice), message: `## ${twice.id} appears twice` })
  for (const section of sections)
    if (!steps.includes(section.id) && !ids.includes(section.id))
      problems.push({ line: at(section), message: `## ${section.id} is not a step, a hint or a choice` })
  const wordsOf = (id: string): StepWords | undefined => {
    const section = found.get(id)
    if (!section) {
      problems.push({
        message: `has no words for the step ${id}: expected a heading ## ${id}: and its title`,
      })
      return undefined
    }
    const [task, ...inner] = sectionsOf(section.text, '###')
    const part = (name: string): string => inner.find((each) => each.id === name)?.text.trim() ?? ''
    if (section.title === '')
      problems.push({ line: at(section), message: `## ${id} has no title: expected ## ${id}: and its title` })
    if (task.trim() === '') problems.push({ line: at(section), message: `## ${id} has no task` })
    if (part('awaited') === '')
      problems.push({
        line: at(section),
        message: `## ${id} does not say what to expect: add ### awaited`,
      })
    for (const each of inner)
      if (each.id !== 'awaited' && each.id !== 'after')
        problems.push({ line: at(section) + each.line, message: `### ${each.id}: expected awaited or after` })
    return { title: section.title, task: task.trim(), awaited: part('awaited'), after: part('after') }
  }
  const said = ids.flatMap((id) => {
    const text = found.get(id)?.text.trim() ?? ''
    if (text === '') problems.push({ message: `has no words for ${id}: expected a heading ## ${id}` })
    return [[id, text] as const]
  })
  return {
    words: {
      title,
      introduction: introduction.trim(),
      steps: new Map(
        steps.flatMap((id) => {
          const words = wordsOf(id)
          return words ? [[id, words] as const] : []
        }),
      ),
      said: new Map(said),
    },
    problems,
  }
}
