/**
 * Where the tests of this folder run: see virtualbox-world.sh and libvirt-world.sh, which test/vagrant/run.mjs starts.
 */

const variable = (name: string): string => {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set: npm run test:vagrant sets it`)
  return value
}

/** A folder that VirtualBox and the tests see under the same name. */
export const vboxFolder = (): string => variable('LAB_TEST_VBOX')
