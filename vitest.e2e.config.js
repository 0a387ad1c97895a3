import { defineConfig } from 'vitest/config';
/** Real labs on real machines, one after the other: they share two cores. */
export default defineConfig({
    test: {
        include: ['test/e2e/**/*.test.ts'],
        globalSetup: ['test/helpers/build.ts'],
        fileParallelism: false,
        bail: 0,
        // Ten times what was measured: a hang must end, a busy machine must not fail.
        testTimeout: 600_000,
        hookTimeout: 600_000,
    },
});
