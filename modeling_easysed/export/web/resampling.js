// Resampling of audio that comes in blocks: a windowed sinc as long as soxr's at its high quality, in phases.
const ATTENUATION_DB = 130; // of what lies above half the lower rate
const PASS = 0.914; // share of the band that stays as it is, up to 1 the filter falls
const MAX_PHASES = 1024; // odd rates lie between two phases

export class Resampler {
  constructor(rate, target) {
    this.step = rate / target; // input samples per output sample
    const divisor = greatestDivisor(rate, target);
    this.rate = rate;
    this.target = target;
    this.phases = Math.min(target / divisor, MAX_PHASES);
    this.filters = makeFilters(this.step, this.phases);
    this.half = this.filters[0].length / 2;
    this.samples = new Float32Array(this.half); // silence before the beginning
    this.first = -this.half; // number of the first of them
    this.made = 0;
  }

  // The next samples (samples,); `isLast` also gives what hears the end. Returns what they make.
  push(block, isLast = false) {
    const joined = new Float32Array(this.samples.length + block.length + (isLast ? this.half + 1 : 0));
    joined.set(this.samples);
    joined.set(block, this.samples.length);
    const total = this.first + this.samples.length + block.length;
    const stop = isLast
      ? Math.floor((total * this.target) / this.rate + 0.5)
      : Math.ceil(((total - this.half) * this.target) / this.rate) - 1;
    const output = new Float32Array(Math.max(0, stop - this.made));
    for (let index = 0; index < output.length; index++) output[index] = this.sample(joined, this.made + index);
    this.made += output.length;
    const keep = Math.min(joined.length, Math.max(0, Math.floor(this.made * this.step) - this.half - this.first));
    this.samples = joined.slice(keep);
    this.first += keep;
    return output;
  }

  sample(joined, number) {
    const whole = Math.floor((number * this.rate) / this.target);
    const phase = (((number * this.rate) % this.target) / this.target) * this.phases;
    const lower = Math.floor(phase);
    const weight = phase - lower;
    const start = whole - this.half + 1 - this.first;
    const low = dot(this.filters[lower], joined, start);
    return weight < 1e-9 ? low : low + weight * (dot(this.filters[lower + 1], joined, start) - low);
  }
}

// A whole recording (samples,) at another rate, at least one sample.
export function resample(samples, rate, target) {
  if (rate === target) return samples;
  const output = new Resampler(rate, target).push(samples, true);
  return output.length > 0 ? output : new Float32Array(1);
}

function dot(filter, samples, start) {
  let sum = 0;
  for (let index = 0; index < filter.length; index++) sum += filter[index] * samples[start + index];
  return sum;
}

// One filter per place between two input samples, and one more for the place of the next sample.
function makeFilters(step, phases) {
  const stretch = Math.max(1, step);
  const cutoff = (PASS + 1) / 2 / stretch; // of half the input rate
  const width = (ATTENUATION_DB - 7.95) / (2.285 * Math.PI * (1 - PASS));
  const half = Math.ceil((width / 2) * stretch);
  const beta = 0.1102 * (ATTENUATION_DB - 8.7);
  return Array.from({ length: phases + 1 }, (_, phase) => {
    const filter = new Float32Array(2 * half);
    for (let index = 0; index < 2 * half; index++) {
      const time = index - half + 1 - phase / phases;
      const edge = 1 - (time / half) ** 2;
      const window = edge > 0 ? bessel(beta * Math.sqrt(edge)) / bessel(beta) : 0;
      const angle = Math.PI * cutoff * time;
      filter[index] = window * cutoff * (angle === 0 ? 1 : Math.sin(angle) / angle);
    }
    return filter;
  });
}

// Modified Bessel function of the first kind, order 0.
function bessel(value) {
  let [sum, term] = [1, 1];
  for (let count = 1; term > 1e-12 * sum; count++) {
    term *= (value / (2 * count)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestDivisor(a, b) {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
