import { percentage } from '../lab/fields.js'
import { shell } from '../machine/sh.js'
import { lasting, where } from '../lab/fault-machines.js'
import { faultOfMachine } from './fault.js'
import { hasTable, loadTable, removingTable } from './packet-filter.js'
import { ofAll, printed, type Sign, soon } from './sign.js'

const lossTable = (table: string, loss: number, spare: string): string =>
  [
    `table inet ${table} {`,
    '  chain go {',
    '    type filter hook postrouting priority 350; policy accept;',
    // SSH from the host keeps working, since the heal needs it.
    `    ip saddr ${spare} tcp sport 22 accept`,
    // The table counts sent and dropped packets, as evidence that it acts.
    '    oifname != "lo" counter',
    `    oifname != "lo" numgen random mod 100 < ${String(loss)} counter drop`,
    '  }',
    '}',
    '',
  ].join('\n')

/** Datagrams sent per observation of packet loss: at a loss of one percent, a few observations are enough. */
const datagrams = 200

const losesPackets = (names: readonly string[], table: string): Sign => ({
  title: `packets that ${names.join(', ')} sends are dropped, as the counter of the rule shows`,
  within: 30,
  probe: (context) =>
    ofAll(names, async (name) => {
      const rules = await printed(
        context,
        name,
        shell`set -- $SSH_CONNECTION; bash -c 'for n in $(seq $0); do echo lab > /dev/udp/$1/9; done' ${datagrams} "$1" 2>/dev/null; nft list table inet ${table}`,
      )
      const [sent, dropped] = [...rules.matchAll(/counter packets (\d+)/g)].map(([, count]) => Number(count))
      return {
        ok: sent !== undefined && dropped !== undefined && dropped > 0,
        saw: `${name}: ${dropped === undefined ? rules || 'no rule' : `${String(dropped)} of ${String(sent)} packets dropped`}`,
      }
    }),
})

const hasNoTable = (names: readonly string[], table: string): Sign => ({
  title: `${names.join(', ')}: the rule is gone`,
  within: soon,
  probe: (context) =>
    ofAll(names, async (name) => {
      const there = await hasTable(context, name, table)
      return { ok: !there, saw: `${name}: ${there ? '' : 'no '}table ${table}` }
    }),
})

const fields = {
  machine: where(),
  loss: percentage('The share of packets that is lost, from 1% to 100%.'),
  for: lasting,
}

declare module '../lab/fault-spec.js' {
  interface FaultFields {
    'packet-loss': typeof fields
  }
}

export const packetLoss = faultOfMachine({
  name: 'packet-loss',
  description: 'Drops some of the packets that a machine sends on the lab network.',
  fields,
  silences: ({ loss }) => loss === '100%',
  undos: [removingTable],
  aim: ({ spec: { loss }, on, names, table, each, undo }) => ({
    detail: `${names} loses ${String(loss)} % of the packets it sends`,
    undo: undo((machine) => removingTable.of(machine, { table })),
    act: (context) => each(({ name, address }) => loadTable(context, name, lossTable(table, loss, address))),
    acting: losesPackets(on, table),
    gone: hasNoTable(on, table),
  }),
})
