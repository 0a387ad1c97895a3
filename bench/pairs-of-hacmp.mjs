/** Every two of the seven machines of hacmp, and the scenario that cuts the power of both. */

/** The third control plane also votes for the two targets; see the lab file. */
const machines = ['target1', 'target2', 'master1', 'master2', 'master3', 'worker1', 'worker2']
export const pairs = machines.flatMap((one, index) => machines.slice(index + 1).map((other) => [one, other]))

/** Milliseconds for which the machines stay off: longer than any takeover. */
export const off = 60_000

export const scenarioOf = (pair) => `pair-${pair.join('-')}`

export const scenarios = pairs.map((pair) => ({
  name: scenarioOf(pair),
  description: `${pair.join(' and ')} lose their power at once, for a minute`,
  inject: pair.map((machine) => ({ fault: 'power-cut', machine })),
  // No limit may be later than the deadline. Whether they are kept does not matter here, only the figures do.
  expect: { writeGap: `${off / 1000}s`, apiGap: `${off / 1000}s` },
  heal: 'deadline',
  deadline: `${off / 1000}s`,
}))

/**
 * The two figures that the table has; undefined if one was not measured. The others may be missing: without a lost
 * worker, for example, no node becomes NotReady.
 */
export const gapsOf = (report) => {
  const [write, api] = ['writeGap', 'apiGap'].map((name) =>
    report?.budgets.find((budget) => budget.name === name && budget.measured !== null),
  )
  return report?.data && write && api ? { write, api } : undefined
}
