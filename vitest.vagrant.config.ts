import { defineConfig } from 'vitest/config'

/** The real Vagrant, libvirt and VBoxManage, in namespaces of their own: npm run test:vagrant */
export default defineConfig({
  test: {
    include: ['test/vagrant/**/*.test.ts'],
    globalSetup: ['test/helpers/build.ts'],
    fileParallelism: false,
    // Machines are emulated, many times slower: `lab` gives up long before this.
    testTimeout: 7_200_000,
    hookTimeout: 7_200_000,
  },
})
