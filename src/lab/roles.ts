/** The roles of machines, in the order in which messages list them. */
export const roles = ['control-plane', 'worker', 'target', 'initiator', 'nfs'] as const

export type Role = (typeof roles)[number]
