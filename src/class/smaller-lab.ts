/** A lab file with less memory for every machine, for many seats on one host. */
import { isMap, isSeq, parseDocument } from 'yaml'

/** MiB by role: the least that a lab file may have. */
const smallMemory: Readonly<Record<string, number>> = { 'control-plane': 1536, worker: 768 }
const otherMemory = 256

const mebibytes = (text: string): number => {
  const [, value = '0', unit = ''] = /^([\d.]+)\s*(MiB|GiB)$/.exec(text) ?? []
  return Number(value) * (unit === 'GiB' ? 1024 : 1)
}

/** The same file with its comments; memory that is already smaller stays. */
export const smallLab = (text: string): string => {
  const document = parseDocument(text)
  const machines = document.get('machines')
  if (!isSeq(machines)) return text
  for (const machine of machines.items) {
    if (!isMap(machine)) continue
    const most = smallMemory[String(machine.get('role'))] ?? otherMemory
    const memory = machine.get('memory')
    const has = typeof memory === 'string' ? mebibytes(memory) : 0
    if (has === 0 || has > most) machine.set('memory', `${String(most)}MiB`)
  }
  return document.toString({ lineWidth: 0 })
}
