/** The results of a class, by seat number: names are in a file of their own. */
import type { Board } from './board.js'

const quoted = (text: string): string => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

export const resultsCsv = (board: Board): string =>
  [
    'seat,status,exercise,step,done,hints,finished,last seen',
    ...board.seats.map(({ id, status, progress }) =>
      [
        id,
        status,
        progress?.exercise ?? '',
        progress?.step ?? '',
        String(progress?.done ?? 0),
        String(progress?.hints ?? 0),
        String(progress?.finished ?? false),
        progress?.saw ?? '',
      ]
        .map(quoted)
        .join(','),
    ),
    '',
  ].join('\n')

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

/** A test case for each seat: passed if its exercise is finished, skipped if none was begun. */
export const resultsJunit = (board: Board): string => {
  const cases = board.seats.map(({ id, progress }) => {
    const inside = !progress
      ? '<skipped message="no exercise was begun"/>'
      : progress.finished
        ? ''
        : `<failure message="${escaped(`at ${progress.step ?? 'no step'}, ${String(progress.done)} done`)}">${escaped(progress.saw ?? '')}</failure>`
    return `  <testcase classname="${escaped(board.lab)}" name="seat ${id}${progress ? `: ${escaped(progress.exercise)}` : ''}">${inside}</testcase>`
  })
  const count = (what: string): number => cases.filter((one) => one.includes(`<${what} `)).length
  return `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="class ${escaped(board.lab)}" tests="${String(cases.length)}" failures="${String(count('failure'))}" skipped="${String(count('skipped'))}">
${cases.join('\n')}
</testsuite>
`
}
