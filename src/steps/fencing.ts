/** The fencing agent, which watches the workers while no command runs. */
import type { LabId } from '../identity.js'
import { isAgentWanted, startAgent, stopAgent } from '../fencing/process.js'
import { agentState, isAtWork, quietOf } from '../fencing/state.js'
import { type Lab, machinesWith } from '../lab/lab.js'
import type { Step } from '../context.js'
import type { Check as AnyCheck, Step as AnyStep, Surroundings } from '../plan/step.js'

const noAgent = (lab: LabId): AnyCheck<Surroundings> => ({
  id: 'no-fencing-agent',
  title: 'no fencing agent is running, and none would be started',
  within: 5,
  probe: async () => {
    const wanted = await isAgentWanted(lab)
    return { ok: !wanted, saw: wanted ? 'one should run, or still runs' : 'none' }
  },
})

/** For a lab of which only the name may be known. */
export const endAgent = (lab: LabId): AnyStep<Surroundings> => ({
  id: 'end-fencing-agent',
  title: 'Stop the fencing agent',
  phase: 'kubernetes',
  needs: [],
  apply: () => stopAgent(lab),
  checks: [noAgent(lab)],
})

export const watchWorkers = (lab: Lab): Step => {
  const workers = machinesWith(lab, 'worker').map(({ name }) => name)
  const { fencing } = lab
  return {
    id: 'watch-workers',
    title:
      fencing === 'none'
        ? 'Leave fencing to people'
        : `Watch the workers, to fence one that fails (${fencing})`,
    phase: 'kubernetes',
    needs: workers.map((name) => `ready-${name}`),
    apply: async () => {
      await stopAgent(lab)
      if (fencing !== 'none') await startAgent(lab)
    },
    undo: { title: 'Stop the fencing agent', apply: () => stopAgent(lab), gone: noAgent(lab) },
    checks: [
      {
        id: 'fencing-agent',
        title:
          fencing === 'none'
            ? 'no fencing agent is running'
            : 'the fencing agent watches the workers, as the lab file says',
        within: 20,
        hint: `lab up ${lab.name}`,
        probe: async () => {
          const state = await agentState(lab)
          if (!state) return { ok: fencing === 'none', saw: 'no agent' }
          const missing = workers.filter((name) => !state.watched.some(({ node }) => node === name))
          return {
            ok: state.method === fencing && isAtWork(state) && (state.suspended || missing.length === 0),
            saw: `pid ${String(state.pid)}, ${state.method}, looked ${(quietOf(state) / 1000).toFixed(1)} s ago, ${
              state.suspended
                ? 'waits for a command to finish'
                : missing.length === 0
                  ? `watches ${workers.join(', ')}`
                  : `does not watch ${missing.join(', ')}`
            }`,
          }
        },
      },
    ],
  }
}
