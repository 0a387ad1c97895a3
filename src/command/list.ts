import { exitCodes, type ExitCode } from '../error.js'
import { labHere, seatHere } from '../identity.js'
import { madeLabs, pathsOf } from '../state.js'
import { shippedLabs } from '../lab/shipped.js'
import { providerNameInUse } from '../lifecycle/provider-in-use.js'
import { printJson } from '../command-line/json.js'
import { asJson, type Io, type Options, type Verb } from '../command-line/verb.js'

/** Lists the shipped labs and those that are up. */
const run = async (options: Options, io: Io): Promise<ExitCode> => {
  const seat = seatHere()
  const there = (await madeLabs()).filter((lab) => lab.seat === seat)
  const shipped = await shippedLabs(async () => (await import('../registry.js')).parseLab)
  const others = there
    .filter(({ name }) => !shipped.some((lab) => lab.name === name))
    .map((lab) => ({
      name: lab.name,
      file: pathsOf(lab).source,
      description: '(from a file of yours)',
      runs: [],
    }))
  const labs = await Promise.all(
    [...shipped, ...others].map(async (lab) => ({
      ...lab,
      provider: await providerNameInUse(labHere(lab.name)),
    })),
  )
  if (options.output === 'json') printJson(io, 'lab.list/v1', { labs })
  else {
    const width = Math.max(...labs.map(({ name }) => name.length))
    for (const { name, provider, description, runs } of labs) {
      io.stdout.write(
        `${name.padEnd(width)}  ${(provider === undefined ? '-' : `made (${provider})`).padEnd(12)}  ${description}\n`,
      )
      for (const each of runs) io.stdout.write(`  ${each.name.padEnd(18)}  ${each.description}\n`)
    }
  }
  return exitCodes.ok
}

export const verb: Verb = {
  options: [asJson],
  looks: true,
  run,
}
