import { z } from 'zod'
import { items, lacks, type DraftFile } from './draft.js'
import { type Lab, type MachineSpec, type Role, roles, type Where } from './lab.js'
import { duration } from './fields.js'
import { didYouMean, shown } from './suggest.js'

/** The machines that a fault hits, and the words for them in a lab file. */

export const where = (description = 'What it happens to') =>
  z.string({ error: 'a machine, a role, database or standby' }).meta({
    description: `${description}: a machine by its name, all machines of a role, \`database\` (the worker that runs the database at that moment), \`standby\` (the workers that do not), \`etcd-leader\` (the control plane that leads etcd), \`endpoint\` (the control plane that has the API server's address), \`target-serving\` or \`target-waiting\` (of the two machines of a target, the one that serves, or the other).`,
    examples: ['database', 'standby', 'worker1', 'target'],
  })

/** Machines that are named by what they do at the moment: their role, and what that is. */
const moving = {
  'etcd-leader': { role: 'control-plane', is: 'the control plane that leads etcd' },
  endpoint: { role: 'control-plane', is: 'the control plane that has the address of the API server' },
  'target-serving': { role: 'target', is: 'the machine that serves a target of two machines' },
  'target-waiting': { role: 'target', is: 'the machine that waits to serve a target of two machines' },
} as const satisfies Readonly<Record<string, { readonly role: Role; readonly is: string }>>

type Moving = keyof typeof moving

const isMoving = (word: string): word is Moving => Object.hasOwn(moving, word)

/** Which machine did what when a fault was aimed. */
export interface Roles extends Readonly<Partial<Record<Moving, string>>> {
  /** The worker that runs the database. */
  readonly server: string
}

/** The duration of a fault that can end before the scenario heals it. */
export const lasting = duration(
  'a duration',
  'How long it lasts. Default: until the scenario heals, see heal.',
).optional()

/** The machines of a fault in the order of the file. */
export const machinesAt = (lab: Lab, where: Where, { server, ...at }: Roles): readonly MachineSpec[] =>
  lab.machines.filter(({ name, role }) => {
    if (where === 'database') return name === server
    if (where === 'standby') return role === 'worker' && name !== server
    if (lab.machines.some((machine) => machine.name === where)) return name === where
    return isMoving(where) ? name === at[where] : role === where
  })

/** The roles that a word of a fault stands for; none for an unknown word. */
export const rolesAt = (file: DraftFile, where: string): readonly Role[] => {
  if (where === 'database' || where === 'standby') return ['worker']
  const machine = items(file.machines).find(([, { name }]) => name === where)?.[1]
  if (machine) return machine.role ? [machine.role] : []
  if (isMoving(where)) return [moving[where].role]
  return roles.filter((role) => role === where)
}

/** Why a word of a fault stands for no machine. */
export const whereProblem = (file: DraftFile, where: string): string | undefined => {
  const machines = items(file.machines).map(([, machine]) => machine)
  // A machine with an invalid name or role may be the one that is meant.
  if (machines.length < (file.machines?.length ?? 1)) return undefined
  if (machines.some(({ name, role }) => name === undefined || role === undefined)) return undefined
  if (where === 'database' || where === 'standby') {
    if (lacks(file, 'database')) return `${where} is about the database; add a database, or name a machine`
    const workers = machines.filter(({ role }) => role === 'worker').length
    return where === 'standby' && workers < 2
      ? 'standby is a worker without the database, so two machines with the role worker are required'
      : undefined
  }
  const names = machines.map(({ name }) => String(name))
  if (names.includes(where)) return undefined
  if (isMoving(where)) {
    const { role, is } = moving[where]
    if (role === 'target')
      return items(file.iscsi?.targets).some(([, { machines: two }]) => two !== undefined)
        ? undefined
        : `${where} is ${is}, so a target with machines is required`
    return machines.filter((machine) => machine.role === role).length > 1
      ? undefined
      : `${where} is ${is}, so several machines with the role control-plane are required`
  }
  if ((roles as readonly string[]).includes(where)) {
    return machines.some(({ role }) => role === where) ? undefined : `no machine has the role ${where}`
  }
  const words = [
    ...names,
    ...roles,
    ...Object.keys(moving),
    ...(lacks(file, 'database') ? [] : ['database', 'standby']),
  ]
  return `no machine is named ${shown(where)}${didYouMean(where, words) || `; expected ${names.join(', ')}, a role, database or standby`}`
}

/** Whether two words of a fault can stand for the same machine, wherever the database runs. */
export const shares = (file: DraftFile, one: string, other: string): boolean => {
  const isRole = (word: string): boolean =>
    roles.some((role) => role === word) && items(file.machines).every(([, { name }]) => name !== word)
  const has = (role: string, word: string): boolean =>
    isRole(role) && !isRole(word) && rolesAt(file, word).some((found) => found === role)
  return one === other || has(one, other) || has(other, one)
}
