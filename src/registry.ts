/**
 * Every fault and experiment of this program, and the lab-file readers that know them: no module below this one knows
 * them by name. Providers have a list of their own, `provider/load.ts`.
 */
import { experiments } from './course/experiments.js'
import { faults } from './fault/faults.js'
import type { Lab } from './lab/lab.js'
import type { Supported } from './lab/cluster-rules.js'
import * as load from './lab/load.js'
import * as parse from './lab/parse.js'
import * as schema from './lab/schema.js'
import { writeList } from './lab/shipped.js'
import type { Registry } from './trial/registry.js'

export const registry: Registry = { faults, experiments }

/** `parseLab` of `lab/parse.ts` with all faults and experiments. */
export const parseLab = (text: string, file: string, versions?: Supported): Lab =>
  parse.parseLab(text, file, registry, versions)

/** `readLab` of `lab/load.ts` with all faults and experiments. */
export const readLab = (nameOrPath: string): Promise<load.LabText> => load.readLab(nameOrPath, registry)

/** The same without its text. */
export const loadLab = async (nameOrPath: string): Promise<Lab> => (await readLab(nameOrPath)).lab

/** The JSON Schema of the lab file, for editors. */
export const jsonSchema = (): object => schema.jsonSchema(registry)

/** Writes the JSON Schema of the lab file and the list of the shipped labs, for `npm run generate`. */
export const writeLabFiles = (): void => {
  schema.writeSchema(registry)
  writeList(parseLab)
}
