import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll } from 'vitest'
import { type Lab } from '../../src/lab/lab.js'
import { loadLab, parseLab } from '../../src/registry.js'
import { machineFiles } from '../../src/machine/files.js'
import type { FileOptions, MachineFile } from '../../src/machine/machine-file.js'

export const options: FileOptions = {
  secrets: { bootstrapToken: 'abcdef.0123456789abcdef', clusterKey: 'key-of-clusters' },
  lunDevice: (index) => `/dev/ubd${'cdefg'.charAt(index)}`,
}

export const nastyText = readFileSync(join(import.meta.dirname, 'nasty.yaml'), 'utf8')

export const labs = new Map<string, Lab>()

beforeAll(async () => {
  for (const name of ['iscsi', 'iscsi-ha']) labs.set(name, await loadLab(name))
  labs.set('nasty', parseLab(nastyText, 'nasty.yaml', { built: '1.36.3', minors: ['1.36'] }))
})

export const labNamed = (name: string): Lab => {
  const lab = labs.get(name)
  if (!lab) throw new Error(`no lab ${name}`)
  return lab
}

export const filesOf = (
  lab: Lab,
  machine: string,
  changes: Partial<FileOptions> = {},
): readonly MachineFile[] => {
  const spec = lab.machines.find(({ name }) => name === machine)
  if (!spec) throw new Error(`no machine ${machine}`)
  return machineFiles(lab, spec, { ...options, ...changes })
}

export const contentOf = (lab: Lab, machine: string, path: string): string => {
  const file = filesOf(lab, machine).find((candidate) => candidate.path === path)
  if (!file) throw new Error(`${machine} has no ${path}`)
  return file.content
}
