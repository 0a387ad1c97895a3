import { defineConfig } from 'vitest/config'

const globalSetup = ['test/helpers/build.ts']

/** Labs share two cores: one file at a time. */
const oneByOne = { globalSetup, fileParallelism: false } as const

const projects = [
  {
    test: {
      name: 'unit',
      include: ['test/**/*.test.ts'],
      exclude: ['test/e2e/**', 'test/vagrant/**'],
      globalSetup: [...globalSetup, 'test/helpers/classes-folder.ts'],
      // More than processors: much of it is processes that wait for one another.
      maxWorkers: 4,
      // Real processes and connections are quick, but not on a host that builds a kernel at the same time.
      testTimeout: 30_000,
      hookTimeout: 30_000,
    },
  },
  {
    test: {
      name: 'e2e',
      include: ['test/e2e/**/*.test.ts'],
      ...oneByOne,
      // Ten times what was measured: a hang must end, a busy host must not fail.
      testTimeout: 600_000,
      hookTimeout: 600_000,
    },
  },
  {
    test: {
      name: 'vagrant',
      include: ['test/vagrant/**/*.test.ts'],
      ...oneByOne,
      // Emulated machines are many times slower; `lab` gives up long before this.
      testTimeout: 7_200_000,
      hookTimeout: 7_200_000,
    },
  },
]

/** The words after `--project`. Without any, `vitest` means unit tests: nobody starts a lab by accident. */
const asked = process.argv.flatMap((word, index, words) =>
  word === '--project' ? [words[index + 1]] : word.startsWith('--project=') ? [word.slice(10)] : [],
)

export default defineConfig({
  test: {
    projects: projects.filter(({ test: { name } }) =>
      asked.length === 0 ? name === 'unit' : asked.includes(name),
    ),
  },
})
