import { defineConfig } from 'vitest/config'

/** The real Vagrant, libvirt and VBoxManage, in namespaces of their own: npm run test:vagrant */
export default defineConfig({
  test: {
    include: ['test/vagrant/**/*.test.ts'],
    globalSetup: ['test/helpers/build.ts'],
    fileParallelism: false,
    // Machines are emulated, many times slower.
    testTimeout: 1_800_000,
    hookTimeout: 1_800_000,
  },
})
