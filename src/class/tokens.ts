/** Tokens that a person can type: four of 256 words, so 32 bits, which the gateway's limits make safe for a day. */
import { randomBytes } from 'node:crypto'

/** Short words of everyday English that do not sound alike. */
export const words: readonly string[] = (
  'acorn actor adult agent album alley amber angel ankle apple april apron arena armor arrow atlas ' +
  'attic audio autumn bacon badge baker bamboo banana banjo barrel basil basket beach beacon beard bench ' +
  'berry bicycle bishop bison blanket blossom bonus border bottle branch bread breeze brick bridge bronze brush ' +
  'bubble bucket budget burger butter button cabin cactus camel camera canal candle canoe canyon carbon cargo ' +
  'carpet carrot castle cedar cello cement cereal chalk cherry chess chicken cigar cinema circus citrus clarinet ' +
  'clock cloud clover cobalt cocoa coffee comet compass copper coral cotton cougar cousin coyote crayon cricket ' +
  'crown crystal cupcake curtain custard daisy dancer debate denim desert dinner doctor dolphin donkey dragon drum ' +
  'eagle earth echo elbow elephant ember engine estate fabric falcon feather fennel ferry fiddle finger flame ' +
  'flower flute forest fossil fountain fox galaxy garage garden garlic gecko ginger giraffe glacier glove goblet ' +
  'golden gospel grape gravel guitar hammer harbor hazel helmet hermit hockey honey horizon hotel husky icicle ' +
  'igloo indigo insect island ivory jacket jaguar jasmine jelly jersey jewel jigsaw jungle kayak kettle kitten ' +
  'koala ladder lagoon lantern laptop lemon leopard letter lilac linen lizard lobster locket lotus lunch magnet ' +
  'mango maple marble market meadow melon mermaid meteor mirror monkey mosaic motor muffin museum music napkin ' +
  'nectar needle nickel noodle nutmeg oasis ocean olive onion opera orange orbit orchid otter oxygen paddle ' +
  'palace panda paper parrot pepper piano picnic pillow pirate planet plum pocket polar pony potato puppet puzzle quartz quilt ' +
  'rabbit radio raven ribbon river robin rocket saddle salmon satin saturn scarf shadow'
)
  .split(' ')
  .slice(0, 256)

/** `maple-otter-clock-garden`. */
export const newToken = (count = 4): string =>
  [...randomBytes(count)].map((byte) => words[byte] ?? '').join('-')

/** As people type it: in capitals, with blanks or dots in between. */
export const tokenOf = (typed: string): string =>
  typed
    .toLowerCase()
    .replaceAll(/[^a-z]+/g, '-')
    .replaceAll(/^-|-$/g, '')
