// Dropout masks of a seed by the recipe in easysed.json: the words of the Mersenne Twister MT19937.
const SIZE = 624,
  OFFSET = 397;

function* words(seed) {
  const state = new Uint32Array(SIZE);
  state[0] = seed;
  for (let index = 1; index < SIZE; index++) {
    const before = state[index - 1] ^ (state[index - 1] >>> 30);
    state[index] = Math.imul(1812433253, before) + index;
  }
  for (;;) {
    for (let index = 0; index < SIZE; index++) {
      const word = (state[index] & 0x80000000) | (state[(index + 1) % SIZE] & 0x7fffffff);
      state[index] = state[(index + OFFSET) % SIZE] ^ (word >>> 1) ^ (word & 1 ? 0x9908b0df : 0);
    }
    for (let word of state) {
      word ^= word >>> 11;
      word ^= (word << 7) & 0x9d2c5680;
      word ^= (word << 15) & 0xefc60000;
      yield (word ^ (word >>> 18)) >>> 0;
    }
  }
}

// (passes, sites, width), flat; `own` is what easysed.json says under "masks".
export function seedMasks(own, passes = own.passes, seed = own.seed) {
  const masks = new Float32Array(passes * own.sites * own.width);
  const source = words(seed);
  const probability = Math.fround(own.probability);
  for (let index = 0; index < masks.length; index++) {
    const uniform = (source.next().value & 0xffffff) / 0x1000000;
    masks[index] = uniform >= probability ? own.kept : 0;
  }
  return masks;
}
