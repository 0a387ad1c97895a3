/** The machines of a lab as a drawing: a pure function of the lab file, so that it always shows this lab. */

const escape = (text) => String(text).replace(/[&<>"]/g, (sign) => `&#${String(sign.codePointAt(0))};`)

const roles = {
  target: 'iSCSI target',
  initiator: 'iSCSI initiator',
  'control-plane': 'control plane',
  worker: 'worker',
  nfs: 'NFS server',
}
const isStorage = ({ role }) => role === 'target' || role === 'nfs'

const box = { width: 150, height: 92, gap: 24 }
const margin = 30

/** Machines in a row, those that serve disks last; below them the disk, and the machines that use it. */
const machineBox = (machine, x, y) => `
<g transform="translate(${x} ${y})"><rect class="machine ${machine.role}" width="${box.width}" height="${box.height}" rx="8"/>
<text class="name" x="12" y="25">${escape(machine.name)}</text><text class="dim" x="12" y="44">${escape(roles[machine.role] ?? machine.role)}</text>
<text x="12" y="63">${escape(machine.address)}</text><text class="dim" x="12" y="81">${escape(machine.memory)}</text></g>`

/**
 * @param lab a parsed lab file
 * @returns SVG that follows the reader's light or dark colours
 */
export const topology = (lab) => {
  const machines = [...lab.machines].sort((a, b) => Number(isStorage(a)) - Number(isStorage(b)))
  const width = 2 * margin + machines.length * (box.width + box.gap) - box.gap
  const top = 96
  const place = (index) => margin + index * (box.width + box.gap)
  const subnet = lab.network?.subnet ?? '192.168.56.0/24'
  const cable = 70
  const drawn = machines.map(
    (machine, index) =>
      `<line class="cable" x1="${place(index) + box.width / 2}" x2="${place(index) + box.width / 2}" y1="${cable}" y2="${top}"/>${machineBox(machine, place(index), top)}`,
  )
  const bottom = top + box.height
  const luns = (lab.iscsi?.targets ?? []).flatMap(({ machine, luns: own }) =>
    own.map((lun) => ({ ...lun, machine })),
  )
  const users = machines.flatMap(({ role }, index) =>
    role === 'worker' || role === 'initiator' ? [index] : [],
  )
  const disks = luns.map(({ lun, size, machine }) => {
    const x = place(machines.findIndex(({ name }) => name === machine)) + box.width / 2
    const y = bottom + 44
    const paths = users.map(
      (user) =>
        `<path class="iscsi" d="M${place(user) + box.width / 2} ${bottom} V${y + 18} H${x - 52}" marker-end="url(#end)"/>`,
    )
    return `${paths.join('')}<line class="iscsi" x1="${x}" x2="${x}" y1="${bottom}" y2="${y - 8}"/>
<path class="disk" d="M${x - 52} ${y} v36 a52 10 0 0 0 104 0 v-36"/><ellipse class="disk" cx="${x}" cy="${y}" rx="52" ry="10"/>
<text x="${x}" y="${y + 30}" text-anchor="middle">LUN ${escape(lun)}, ${escape(size)}</text>`
  })
  const [first] = users
  const note =
    lab.database && first !== undefined
      ? `<text class="dim" x="${place(first) + box.width / 2}" y="${bottom + 84}">iSCSI: the database runs on one worker, its data is on the disk</text>`
      : ''
  const height = bottom + (luns.length > 0 ? 120 : 30)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="title">
<title id="title">${escape(lab.name)}: ${escape(machines.map(({ name, role }) => `${name} (${roles[role] ?? role})`).join(', '))} on the network ${escape(subnet)}</title>
<style>
text { font: 13px system-ui, sans-serif; fill: #1c2024; } .name { font-weight: 700; font-size: 15px; } .dim { fill: #5b636b; }
.host { fill: none; stroke: #9aa2aa; stroke-dasharray: 6 5; } .machine { fill: #f4f6f8; stroke: #5b636b; }
.target, .nfs { fill: #e3f1ef; } .worker { fill: #e6edf9; } .cable { stroke: #5b636b; stroke-width: 2; }
.iscsi { fill: none; stroke: #12776f; stroke-width: 1.5; } .disk { fill: #e3f1ef; stroke: #12776f; } marker path { fill: #12776f; }
@media (prefers-color-scheme: dark) {
text { fill: #e6e8ea; } .dim { fill: #a0a8b0; } .machine { fill: #23282e; stroke: #a0a8b0; } .target, .nfs, .disk { fill: #16332f; }
.worker { fill: #1b2a44; } .cable { stroke: #a0a8b0; } .iscsi, .disk { stroke: #57c7bd; } marker path { fill: #57c7bd; }
}
</style>
<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>
<rect class="host" x="8" y="8" width="${width - 16}" height="${height - 16}" rx="12"/>
<text class="dim" x="${margin}" y="36">your computer</text>
<text x="${width - margin}" y="${cable - 10}" text-anchor="end">${escape(subnet)}</text>
<line class="cable" x1="${margin}" x2="${width - margin}" y1="${cable}" y2="${cable}"/>
${drawn.join('\n')}
${disks.join('\n')}
${note}
</svg>
`
}
