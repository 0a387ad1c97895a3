import { defineConfig } from 'vitest/config'

const minutes = 60_000

/** Real labs on real machines, one after the other: each wants the memory of the whole host. */
export default defineConfig({
  test: {
    include: ['test/e2e/**/*.test.ts'],
    globalSetup: ['test/helpers/build.ts'],
    fileParallelism: false,
    maxWorkers: 1,
    testTimeout: 20 * minutes,
    hookTimeout: 20 * minutes,
    teardownTimeout: 2 * minutes,
  },
})
