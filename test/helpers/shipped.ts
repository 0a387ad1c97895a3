import { shippedLabs } from '../../src/lab/shipped.js'
import { parseLab } from '../../src/registry.js'

/** The labs that come with lab. */
export const shipped = await shippedLabs(() => Promise.resolve(parseLab))
