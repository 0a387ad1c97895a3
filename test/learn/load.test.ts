/** What an author of an exercise is told, and that every shipped exercise is complete. */
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { exerciseFolders, exercisesFolder, folderOfExercise, loadExercise } from '../../src/learn/load.js'
import { widthOf } from '../../src/learn/layout.js'
import { interfaceWords, stepScreen } from '../../src/learn/screen.js'
import { languages } from '../../src/learn/words.js'
import { providerNamed } from '../../src/provider/load.js'
import { loadLab } from '../../src/registry.js'
import { shipped as labs } from '../helpers/shipped.js'
import { planUp } from '../../src/up.js'
import { temporaryFolder } from '../helpers/folder.js'

const shipped = exercisesFolder('iscsi')
const provider = await providerNamed('uml')
const checksOf = async (name: string): Promise<readonly string[]> =>
  planUp(await loadLab(name), provider, {
    secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
    lunDevice: () => '/dev/ubdc',
  }).steps.flatMap((step) => step.checks.map(({ id }) => id))

const all = await Promise.all(
  labs.map(async ({ name }) => {
    const [lab, checks] = [await loadLab(name), await checksOf(name)]
    return exerciseFolders(shipped, name).map((folder) => ({ folder, lab, checks }))
  }),
)
const exercises = all.flat().map((each) => [each.folder.split('/').at(-1) ?? '', each] as const)

test('every folder of shipped exercises belongs to a shipped lab', () => {
  expect(exercises.map(([name]) => name).sort()).toEqual(readdirSync(shipped).sort())
})

describe.each(exercises)('the exercise %s', (_, { folder, lab, checks }) => {
  test('the exercise can be loaded in both languages', () => {
    const { words, steps } = loadExercise(folder, lab, checks)
    expect([...words.ja.steps.keys()]).toEqual([...words.en.steps.keys()])
    expect([...words.en.steps.keys()]).toEqual(steps.map(({ id }) => id))
  })

  test('the exercise has the same commands in both languages', async () => {
    const blocks = async (language: string): Promise<readonly string[]> =>
      [...(await readFile(join(folder, `${language}.md`), 'utf8')).matchAll(/^```\n([^]*?)^```/gm)].map(
        ([, block = '']) => block,
      )
    expect(await blocks('ja')).toEqual(await blocks('en'))
  })

  test.each(languages)('the exercise fits into 80 x 24 in the language %s', (language) => {
    const exercise = loadExercise(folder, lab, checks)
    for (const step of exercise.steps)
      for (const done of [false, true]) {
        const look = { is: 'yes', saw: 'x '.repeat(150), held: 0, wanted: 0, done } as const
        const below = { kind: 'hint', text: 'y '.repeat(300) } as const
        const screen = stepScreen(
          { exercise, language, step, look, seconds: 5999, below, typed: '' },
          { columns: 80, rows: 23 },
        )
        expect(screen.length, `${step.id}\n${screen.join('\n')}`).toBeLessThanOrEqual(23)
        expect(screen.filter((line) => widthOf(line) > 80)).toEqual([])
        expect(screen).toContain(interfaceWords[language].keys)
        // Neither the task nor its explanation is cut off.
        const after = exercise.words[language].steps.get(step.id)?.after.replaceAll(/\s/g, '') ?? ''
        if (done) expect(screen.join('').replaceAll(/\s/g, '')).toContain(after)
      }
  })
})

const iscsi = await loadLab('iscsi')
const iscsiChecks = await checksOf('iscsi')

/** A copy of a shipped exercise, with one of its files changed. */
const changed = async (file: string, change: (text: string) => string): Promise<string> => {
  const folder = join(await temporaryFolder(), 'learn', 'x')
  await mkdir(folder, { recursive: true })
  await cp(join(shipped, 'chap-login'), folder, { recursive: true })
  await writeFile(join(folder, file), change(await readFile(join(folder, file), 'utf8')))
  return folder
}

const complaint = (folder: string): string => {
  try {
    loadExercise(folder, iscsi, iscsiChecks)
    return 'none'
  } catch (error) {
    return (error as Error).message.replaceAll(`${folder}/`, '')
  }
}

test.each([
  [
    'an unknown check',
    'exercise.yaml',
    /^ {6}run:$/m,
    '      runs:',
    'exercise.yaml:8:7  steps[0].check.runs: unknown field; did you mean run?',
  ],
  [
    'an unknown check of lab verify',
    'exercise.yaml',
    /^ {4}check:\n {6}run:\n.*\n.*\n/m,
    '    check: { verify: [target00-chapp] }\n',
    'exercise.yaml:7:23  steps[0].check.verify[0]: lab verify iscsi has no check target00-chapp; did you mean target00-chap?',
  ],
  [
    'a step without a check',
    'exercise.yaml',
    /^ {4}check:\n {6}run:\n.*\n.*\n/m,
    '',
    'exercise.yaml:6:9  steps[0].id: log-out has no check and no question; it must have exactly one of them',
  ],
  [
    'a machine that the lab does not have',
    'exercise.yaml',
    'on: initiator',
    'on: initiater',
    'exercise.yaml:9:13  steps[0].check.run.on: iscsi has no machine initiater; did you mean initiator?',
  ],
  [
    'a bad pattern',
    'exercise.yaml',
    /says: '.*'/,
    "says: '['",
    'exercise.yaml:41:15  steps[2].check.run.says: this is not a regular expression',
  ],
  [
    'a step that needs a later one',
    'exercise.yaml',
    'needs: [log-out]',
    'needs: [where]',
    'exercise.yaml:31:12  steps[1].needs: where is not a step before refused',
  ],
  [
    'a wrong attempt with a hint that its step does not have',
    'exercise.yaml',
    'hint: still-logged-in',
    'hint: no-chap',
    'no-chap is not a hint of the step log-out',
  ],
  [
    'an exercise for another lab',
    'exercise.yaml',
    'lab: iscsi',
    'lab: iscsi-ha',
    'exercise.yaml:2:6  lab: is about iscsi-ha, but this is the lab iscsi',
  ],
  ['YAML that cannot be read', 'exercise.yaml', 'steps:', 'steps: [', 'exercise.yaml:6:9  not YAML'],
  [
    'Japanese words without a step',
    'ja.md',
    /## log-in: [^]*?(?=## write)/,
    '',
    'ja.md  has no words for the step log-in: expected a heading ## log-in: and its title',
  ],
  [
    'Japanese words for a heading that is not a step',
    'ja.md',
    '## write-it',
    '## write-that',
    'ja.md:104:1  ## write-that is not a step, a hint or a choice',
  ],
  [
    'a step that does not say what is awaited',
    'en.md',
    '### awaited',
    '### expected',
    'en.md:9:1  ### expected: expected awaited or after',
  ],
])('a mistake in an exercise is reported with its place: %s', async (_, file, what, instead, wanted) => {
  expect(complaint(await changed(file, (text) => text.replace(what, instead)))).toContain(wanted)
})

test('an exercise without Japanese words is refused', async () => {
  const folder = join(await temporaryFolder(), 'x')
  await mkdir(folder)
  for (const file of ['exercise.yaml', 'en.md'])
    await cp(join(shipped, 'chap-login', file), join(folder, file))
  expect(complaint(folder)).toBe('ja.md  there is no such file: an exercise has its words in en and ja')
})

test('the error about a missing exercise names the existing ones', () => {
  expect(() => folderOfExercise(shipped, 'iscsi', 'chap-logim')).toThrow('did you mean chap-login?')
})

test('the exercises of a user’s own lab file are looked for next to it', () => {
  expect(exercisesFolder('labs/mine.yaml')).toBe('labs/learn')
})
