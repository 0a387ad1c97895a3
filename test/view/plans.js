export const stepOf = (id, title, phase, machine, checkTitles = [`${id} is so`]) => {
    const [first, ...more] = checkTitles.map((checkTitle, index) => ({
        id: index === 0 ? `${id}-check` : `${id}-check-${String(index + 1)}`,
        title: checkTitle,
        probe: () => Promise.resolve({ ok: true, saw: '' }),
    }));
    if (!first)
        throw new Error('a step has a check');
    return {
        id,
        title,
        phase,
        needs: [],
        apply: () => Promise.resolve(),
        checks: [first, ...more],
        ...(machine === undefined ? {} : { machine }),
    };
};
export const resultOf = (step, outcome, details = {}) => ({
    step,
    outcome,
    seconds: details.seconds ?? 0.1,
    checks: outcome === 'not-reached'
        ? []
        : step.checks.map((check) => ({ check, ok: outcome !== 'failed', saw: details.saw ?? 'it is' })),
    ...(details.reason === undefined ? {} : { reason: details.reason }),
    ...(details.hint === undefined ? {} : { hint: details.hint }),
});
export const finished = (...args) => ({
    type: 'step-finished',
    result: resultOf(...args),
});
export const reportOf = (title, results, details = {}) => ({
    title,
    started: new Date('2026-11-21T06:40:00Z'),
    seconds: 12.34,
    interrupted: false,
    results,
    ...details,
});
