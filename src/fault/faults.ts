/** Every fault that a lab file can name, in the order in which its schema lists them. */
import { clockSkew } from './clock-skew.js'
import { cordon } from './cordon.js'
import { delay } from './delay.js'
import { deletePod } from './delete-pod.js'
import { diskError } from './disk-error.js'
import { diskFull } from './disk-full.js'
import { drain } from './drain.js'
import type { FaultRecord } from './fault.js'
import { hang } from './hang.js'
import { maintenance } from './maintenance.js'
import { packetLoss } from './packet-loss.js'
import { partition } from './partition.js'
import { powerCut } from './power-cut.js'
import { reboot } from './reboot.js'
import { splitBrain } from './split-brain.js'
import { stopService } from './stop-service.js'
import { targetLoss } from './target-loss.js'

export const faults: readonly FaultRecord[] = [
  drain,
  cordon,
  deletePod,
  powerCut,
  hang,
  reboot,
  partition,
  packetLoss,
  delay,
  stopService,
  targetLoss,
  diskFull,
  diskError,
  maintenance,
  splitBrain,
  clockSkew,
]
