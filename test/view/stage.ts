/** A program for tests with a pseudo-terminal: plays one scene through the real view. `node stage.js SCENE` */
import { setTimeout as delay } from 'node:timers/promises'
import type { Report, Step, StepResult } from '../../src/plan/step.js'
import { createView, wantsColor, type View } from '../../src/view/view.js'
import { finished, reportOf, resultOf, stepOf } from './plans.js'

/** Makes scenes longer, to look at them. */
const slow = Number(process.env.SLOW ?? '1')
const wait = (milliseconds: number): Promise<void> => delay(milliseconds * slow)

/** Called at each write to the terminal. */
const onDraw = new Set<() => void>()
const write = process.stdout.write.bind(process.stdout)
process.stdout.write = ((...words: Parameters<typeof write>) => {
  for (const call of onDraw) call()
  return write(...words)
}) as typeof process.stdout.write

/** Waits until the view has drawn its present state: a busy host may draw later than any fixed time. */
const nextFrame = (): Promise<void> =>
  new Promise((resolve) => {
    // The view's own timers let the process end.
    const busy = setInterval(() => undefined, 1000)
    const call = (): void => {
      onDraw.delete(call)
      clearInterval(busy)
      resolve()
    }
    onDraw.add(call)
  })

const view: View = createView({
  stream: process.stdout,
  events: process.argv.includes('--events'),
  eventsStream: process.stdout,
  color: wantsColor(process.stdout),
  interactive: true,
  secrets: ['s3cret-of-the-lab'],
})

const machines = ['cp', 'worker1', 'worker2', 'worker3', 'target', 'initiator']

/** 60 steps in 6 phases. */
const bigSteps: Step[] = ['machines', 'targets', 'nodes', 'control plane', 'workers', 'workload'].flatMap(
  (phase, p) =>
    Array.from({ length: 10 }, (_, s) => {
      const machine = machines[s % machines.length]
      return stepOf(`step-${String(p)}-${String(s)}`, `Do thing ${String(s)} of ${phase}`, phase, machine)
    }),
)

const play = async (step: Step, time: number): Promise<StepResult> => {
  view.event({ type: 'step-started', step })
  await wait(time / 4)
  view.event({ type: 'step-applying', step, why: `${step.id} is so: no: nothing there` })
  await nextFrame()
  await wait(time / 4)
  view.event({ type: 'step-progress', step, note: 'pulling registry.k8s.io/pause:3.10' })
  await nextFrame()
  await wait(time / 4)
  view.event({ type: 'step-waiting', step, waitingFor: `${step.id} is so`, saw: 'connection refused' })
  await nextFrame()
  await wait(time / 4)
  return resultOf(step, 'changed', { seconds: time / 1000 })
}

const done = (result: StepResult): StepResult => {
  view.event({ type: 'step-finished', result })
  return result
}

const run = async (title: string, steps: Step[], body: () => Promise<StepResult[]>): Promise<Report> => {
  view.event({ type: 'run-started', plan: { title, steps } })
  const report = reportOf(title, await body())
  view.event({ type: 'run-finished', report })
  return report
}

const scenes: Record<string, () => Promise<unknown>> = {
  big: () =>
    run('Bring up big', bigSteps, async () => {
      const results: StepResult[] = []
      for (let p = 0; p < 6; p += 1) {
        const steps = bigSteps.slice(p * 10, p * 10 + 10)
        if (p === 3) view.notice('The lab is half way.')
        results.push(
          ...(await Promise.all(
            steps.map(async (step, index) => {
              await wait(index * 60)
              return done(await play(step, 500))
            }),
          )),
        )
      }
      return results
    }),
  one: () => {
    const step = stepOf('boot-cp', 'Boot cp', 'machines', 'cp')
    const later = stepOf('later', 'Do this later', 'later')
    return run('Bring up one', [step, later], async () => [
      done(await play(step, 4800)),
      done(resultOf(later, 'ok')),
    ])
  },
  all: () =>
    run('Verify big', bigSteps, () =>
      Promise.all(
        bigSteps.map(async (step, index) => {
          view.event({ type: 'step-started', step })
          await nextFrame()
          await wait(300 + (index % 7) * 100)
          return done(
            resultOf(step, 'ok', { saw: `${step.id} is there, as it should be, and as it was before` }),
          )
        }),
      ),
    ),
  failed: () => {
    const [first, second, third, fourth] = [
      stepOf('boot-cp', 'Boot cp', 'machines', 'cp'),
      stepOf('boot-worker1', 'Boot worker1', 'machines', 'worker1'),
      stepOf('init', 'Initialise the control plane', 'cluster', 'cp'),
      stepOf('deploy', 'Deploy the database', 'workload'),
    ]
    return run('Bring up small', [first, second, third, fourth], async () => {
      const results = [done(resultOf(first, 'ok', { saw: 'SSH answers' }))]
      results.push(done(await play(second, 400)))
      view.event({ type: 'step-started', step: third })
      await wait(300)
      results.push(
        done(
          resultOf(third, 'failed', {
            seconds: 180,
            reason:
              'node cp is Ready: no: NotReady, KubeletNotReady: container runtime network not ready, s3cret-of-the-lab (waited 180 s)',
            hint: 'lab ssh small cp -- sudo journalctl -u kubelet -n 50',
          }),
        ),
        done(resultOf(fourth, 'not-reached', { reason: 'needs: Initialise the control plane' })),
      )
      return results
    })
  },
  quick: async () => {
    const step = stepOf('one', 'Look at one thing', 'looks')
    view.event({ type: 'run-started', plan: { title: 'Look', steps: [step] } })
    view.event({ type: 'step-started', step })
    view.event(finished(step, 'ok', { saw: 'one thing' }))
    view.event({ type: 'run-finished', report: reportOf('Look', [resultOf(step, 'ok')]) })
    view.notice('said after the end')
    await Promise.resolve()
  },
  parts: async () => {
    const total = 11
    const part = (
      index: number,
      state: 'waiting' | 'building' | 'built' | 'cached' | 'failed',
      more = {},
    ): void => {
      view.part({
        part: `part${String(index)}`,
        title: `Building part ${String(index)}`,
        index,
        total,
        state,
        ...more,
      })
    }
    for (let index = 1; index <= total; index += 1) part(index, 'waiting')
    for (let index = 1; index <= 3; index += 1) part(index, 'cached')
    for (let index = 4; index <= total; index += 1) {
      for (let tenth = 0; tenth < 10; tenth += 1) {
        part(index, 'building', {
          fraction: tenth / 10,
          elapsed: 140 + tenth,
          remaining: 200 - tenth,
          note: `CC net/core/dev${String(tenth)}.o`,
          log: '/root/.cache/lab/log/kernel.log',
        })
        await wait(40)
      }
      if (index === total)
        part(index, 'failed', { elapsed: 12, note: 'make: *** Error 2', log: '/root/.cache/lab/log/x.log' })
      else part(index, 'built', { elapsed: 140 + index })
    }
  },
  /** Ctrl-C: the caller handles it, and the process ends at once. */
  interrupted: () => {
    process.on('SIGINT', () => {
      view.notice('interrupted; ending')
      void view.close().then(() => process.exit(130))
    })
    const step = stepOf('long', 'Wait for a long time', 'waits', 'cp')
    const other = stepOf('later', 'Do this later', 'later', 'cp')
    view.event({ type: 'run-started', plan: { title: 'Wait', steps: [step, other] } })
    view.event({ type: 'step-started', step })
    setTimeout(() => process.kill(process.pid, 'SIGINT'), 400)
    return delay(60_000)
  },
  /** Does not close the view: nothing of it may keep the process alive. */
  forgotten: async () => {
    const step = stepOf('long', 'Wait for a long time', 'waits', 'cp')
    view.event({ type: 'run-started', plan: { title: 'Wait', steps: [step] } })
    view.event({ type: 'step-started', step })
    await wait(300)
  },
  /** An unexpected error in the middle of a drawing. */
  defect: async () => {
    const step = stepOf('long', 'Wait for a long time', 'waits', 'cp')
    view.event({ type: 'run-started', plan: { title: 'Wait', steps: [step] } })
    view.event({ type: 'step-started', step })
    await wait(300)
    console.error('said to standard error')
    throw new TypeError('a defect')
  },
}

const scene = process.argv[2] ?? ''
await scenes[scene]?.()
if (scene !== 'forgotten') await view.close()
