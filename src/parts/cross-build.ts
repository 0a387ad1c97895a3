/** Turns parts into parts for an architecture other than this host's. */
import { join } from 'node:path'
import type { Architecture } from './architecture.js'
import type { Build, Part } from './part.js'
import { partsFolder, type Pins } from './pins.js'
import { toolsRoot } from './debian.js'

const emulateScript = join(partsFolder, 'cross', 'emulate.sh')

/** Tools for building parts for another architecture: a C cross compiler and an emulator. */
export const cross = (pins: Pins, architecture: Architecture): Part =>
  toolsRoot(pins, {
    id: 'cross',
    title: 'Emulator and compiler',
    packages: pins.cross[architecture]?.packages ?? [],
  })

/** A part whose build runs programs of its own architecture, in an emulator. */
export const emulated = (part: Part, pins: Pins, architecture: Architecture): Part => ({
  ...part,
  needs: [...part.needs, 'cross'],
  values: { of: part.values, emulator: pins.cross[architecture]?.emulator },
  files: [...part.files, emulateScript],
  reference: { ...part.reference, seconds: part.reference.seconds * pins.emulationFactor },
  build: (build) => {
    const emulator = join(build.need('cross'), 'root', pins.cross[architecture]?.emulator ?? '')
    return part.build({
      ...build,
      run: (command, options) => build.run([emulateScript, architecture, emulator, ...command], options),
    })
  },
})

/** The id of a part for another architecture. */
export const foreignPart = (id: string, architecture: Architecture): string => `${id}-${architecture}`

/** The parts with the architecture in their ids and titles, so that they can exist next to this host's own. */
export const renamed = (parts: readonly Part[], architecture: Architecture): readonly Part[] => {
  const named = (id: string): string =>
    parts.some((part) => part.id === id) ? foreignPart(id, architecture) : id
  const within = (build: Build): Build => ({ ...build, need: (id) => build.need(named(id)) })
  return parts.map(({ fetch, ...part }) => ({
    ...part,
    id: named(part.id),
    title: `${part.title}, ${architecture}`,
    needs: part.needs.map(named),
    values: { architecture, all: part.values },
    fetch: fetch && {
      ...fetch,
      needs: fetch.needs.map(named),
      run: (build, url) => fetch.run(within(build), url),
    },
    build: (build) => part.build(within(build)),
  }))
}
