/**
 * `lab class up`: writes the desired state, and makes sure that the process that keeps the class is running; that
 * process does the rest.
 */
import { dirname } from 'node:path'
import { cardUrl, type ClassFile, classPaths, readClass } from '../class/class.js'
import { type ClassRequest, wantedClass } from '../class/desired.js'
import type { Board } from '../class/board.js'
import { untilSettled } from '../class/gateway-process.js'
import { labOfSize, makeClass, refuseOwnFile } from '../class/make.js'
import { spareSeats } from '../class/room.js'
import { readRoster, wholeClass } from '../class/roster.js'
import { needRoot } from '../class/seat.js'
import type { Io, Options } from '../command-line/verb.js'
import { preparationOf, viewFor } from '../command-line/with-lab.js'
import { exitCodes, type ExitCode } from '../error.js'
import { loadLab } from '../lifecycle/load-lab.js'
import { prepareParts } from '../lifecycle/parts.js'
import { takeLock } from '../lock.js'
import { chooseProvider } from '../provider/load.js'
import { parseLab } from '../registry.js'
import { makeFolder } from '../trust.js'
import { joinOthers, spreadSeats } from './class-hosts.js'

const summary = (wanted: ClassFile, { seats }: Board, seconds: number): string => {
  const ready = seats.filter(({ status }) => status === 'ready').length
  return [
    `${String(ready)} of ${String(seats.length)} seats of ${wanted.lab} are up, after ${seconds.toFixed(0)} s`,
    ...seats.filter(({ status }) => status === 'failed').map(({ id, detail }) => `  seat ${id}: ${detail}`),
    '',
    `The gateway listens at ${wanted.host}, port ${String(wanted.port)}, until ${wanted.until}`,
    `  board  ${cardUrl(wanted, wanted.teacher)}`,
    `  cards  ${classPaths(wanted.lab).cards}`,
    '',
    'Try next',
    '  lab class verify      checks every seat the way a student reaches it',
    '  lab class status',
    '  lab class down        ends the class and verifies that nothing is left',
    '',
  ].join('\n')
}

export const up = async (name: string, options: Options & ClassRequest, io: Io): Promise<ExitCode> => {
  needRoot()
  const view = viewFor(io, options)
  try {
    const lab = await loadLab(name)
    refuseOwnFile(name, lab)
    const provider = await chooseProvider('uml', lab, io.signal)
    const { lock } = classPaths(lab.name)
    await makeFolder(dirname(lock), 0o755)
    const notice = (text: string): void => view.notice(text)
    const release = await takeLock(lock, {
      command: `lab class up ${lab.name}`,
      purpose: 'change',
      wait: options.wait ? (who) => view.notice(`waiting for ${who}`) : undefined,
      signal: io.signal,
    })
    let wanted: ClassFile
    try {
      const [here, roster] = [await readClass(lab.name), await readRoster(lab.name)]
      wanted = wantedClass(lab, options, here && wholeClass(here, roster))
      const hosts = options.hosts ?? roster?.hosts
      const spare = async (): Promise<number> =>
        spareSeats((await labOfSize(lab, wanted.size, parseLab)).lab, here)
      const spread =
        hosts === undefined
          ? undefined
          : await spreadSeats(wanted, hosts, { here, roster }, spare, options, io)
      const prepare = (): Promise<void> =>
        prepareParts(lab, provider, { ...options, ask: io.ask }, preparationOf(io, view))
      const making = { parse: parseLab, prepare, notice, signal: io.signal }
      await makeClass(lab, spread?.here ?? wanted, making)
      if (spread) await joinOthers(spread, options, io, notice)
    } finally {
      await release()
    }
    const began = Date.now()
    const board = await untilSettled(
      wanted,
      ({ id, status, detail }) => notice(`seat ${id}  ${status}: ${detail}`),
      io.signal,
    )
    await view.close()
    io.stdout.write(summary(wanted, board, (Date.now() - began) / 1000))
    return board.seats.every(({ status }) => status === 'ready') ? exitCodes.ok : exitCodes.failed
  } finally {
    await view.close()
  }
}
