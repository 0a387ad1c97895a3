import { defineConfig } from 'vitest/config'

/** Everything that needs no machines. Real labs: vitest run --config vitest.e2e.config.ts */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/e2e/**', 'test/vagrant/**'],
    globalSetup: ['test/helpers/build.ts'],
    // More than processors: much of it is processes that wait for one another.
    maxWorkers: 4,
    // Real processes and real connections: they are quick, but not on a machine that builds a kernel meanwhile.
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
