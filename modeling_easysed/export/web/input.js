// What may be wrong with a recording before the network is blamed, measured as input_easysed.py does it: there stand
// the meanings of the limits.
import { filled, mean, quantileOfSorted, roundHalfEven } from "./numbers.js";
import { range } from "./audio.js";

const FRAME_S = 0.05,
  BLOCK_FRAMES = 400,
  SILENCE_DB = -120,
  QUIET_PEAK_DB = -55;
const DC_LEVEL = 0.02,
  DC_TO_LEVEL = 0.2;
const NOISE_FLOOR_DB = -35,
  NOISE_RISE_DB = 0.9,
  NOISE_FLATNESS = 0.9,
  NOISE_MIN_S = 1;
const CLIPPED_AS_CUT = [1e-4, 3],
  CLIPPED_RIPPLED = [0.04, 6],
  CLIPPED_FALL = 10;
const CLIPPED_MIN_PEAK = 0.1,
  CLIPPED_SHARE = 1e-4,
  RIPPLED_MIN_SAMPLES = 18;
const SMALLEST_STEP = 2 ** -15,
  COARSE_STEP = 2 ** -7;
const LOUD_RANGE_DB = 30,
  MIN_LOUD_FRAMES = 5,
  MAX_LOUD_FRAMES = 64;
const CLIFF_WIDTH_HZ = 500,
  CLIFF_DROP_DB = 40,
  CLIFF_DEPTH_DB = 50;
const MIN_CUTOFF_HZ = 1000,
  MAX_CUTOFF_HZ = 7000,
  FLATNESS_FROM_HZ = 100;

const ratio = (db) => 10 ** (db / 10);
const inDb = (power) => 10 * Math.log10(Math.max(power, ratio(SILENCE_DB)));

// Of mono samples (samples,), at least one.
export function measureInput(samples, rate) {
  const frame = Math.min(samples.length, Math.max(1, roundHalfEven(FRAME_S * rate)));
  const [lowest, highest] = range(samples);
  const offset = mean(samples);
  const { total, powers } = powersOf(samples, frame, offset);
  const sorted = powers.slice().sort();
  const loudest = sorted.at(-1);
  const loud = [...powers.keys()].filter(
    (at) => powers[at] > Math.max(ratio(-LOUD_RANGE_DB) * loudest, ratio(SILENCE_DB)),
  );
  const spectrum = spectrumOf(samples, frame, loud, offset);
  const bin_hz = rate / frame;
  return {
    duration_s: samples.length / rate,
    peak_db: inDb(Math.max(highest, -lowest) ** 2),
    level_db: inDb(total / samples.length),
    noise_floor_db: inDb(quantileOfSorted(sorted, 0.1)),
    loud_db: inDb(quantileOfSorted(sorted, 0.95)),
    clipped_share: numClipped(samples, frame * BLOCK_FRAMES, lowest, highest, offset) / samples.length,
    dc_offset: offset,
    cutoff_hz: loud.length >= MIN_LOUD_FRAMES ? cutoffOf(spectrum, bin_hz) : null,
    flatness: flatnessOf(spectrum.slice(Math.ceil(FLATNESS_FROM_HZ / bin_hz), Math.floor(MAX_CUTOFF_HZ / bin_hz) + 1)),
  };
}

// One sentence for every fault, in Python's words.
export function inputWarnings(measures, words) {
  const level = ratio(measures.level_db / 2);
  const isSteady =
    measures.noise_floor_db > NOISE_FLOOR_DB && measures.loud_db - measures.noise_floor_db < NOISE_RISE_DB;
  const faults = {
    too_quiet: measures.peak_db < QUIET_PEAK_DB,
    clipped: measures.clipped_share > CLIPPED_SHARE,
    band_limited: measures.cutoff_hz !== null,
    off_centre: Math.abs(measures.dc_offset) > Math.max(DC_LEVEL, DC_TO_LEVEL * level),
    noisy: isSteady && measures.flatness > NOISE_FLATNESS && measures.duration_s >= NOISE_MIN_S,
  };
  const values = { ...measures, clipped_percent: 100 * measures.clipped_share };
  return Object.keys(faults)
    .filter((name) => faults[name])
    .map((name) => filled(words[name], values));
}

// Sum of squares around the mean, and the mean square of every whole frame.
function powersOf(samples, frame, offset) {
  const powers = new Float64Array(Math.floor(samples.length / frame));
  let total = 0;
  for (let at = 0; at < samples.length; at++) {
    const square = (samples[at] - offset) ** 2;
    total += square;
    const number = Math.floor(at / frame);
    if (number < powers.length) powers[number] += square / frame;
  }
  return { total, powers };
}

// Samples in clipped runs at either extreme, block by block.
function numClipped(samples, blockSize, lowest, highest, offset) {
  let [asCut, rippled] = [0, 0];
  for (const [sign, top] of [
    [1, highest],
    [-1, -lowest],
  ]) {
    if (Math.min(top, top - sign * offset) < CLIPPED_MIN_PEAK) continue;
    for (let start = 0; start < samples.length; start += blockSize) {
      const upright = samples.slice(start, start + blockSize).map((value) => sign * value);
      rippled += numFlat(upright, top, ...CLIPPED_RIPPLED);
      asCut += numFlat(upright, top, ...CLIPPED_AS_CUT);
    }
  }
  return Math.max(asCut, rippled >= RIPPLED_MIN_SAMPLES ? rippled : 0);
}

// Samples in flat runs at `top` that end in corners.
function numFlat(block, top, tolerance, minRun) {
  let width = Math.max(tolerance * top, SMALLEST_STEP);
  const runs = [];
  for (let at = 0; at < block.length; at++) {
    const start = at;
    while (at < block.length && block[at] >= top - width) at++;
    if (at - start >= minRun) runs.push([start, at - start]);
  }
  if (runs.length === 0) return 0;
  let isCoarse = true;
  for (let at = 0; at < block.length && isCoarse; at += 97) isCoarse = (block[at] / COARSE_STEP) % 1 === 0;
  if (isCoarse) width = Math.max(width, COARSE_STEP);
  return runs.reduce((count, [start, length]) => {
    const beyond = Math.floor((length + 1) / 2);
    const left = block[Math.max(start - beyond, 0)];
    const right = block[Math.min(start + length - 1 + beyond, block.length - 1)];
    return count + (top - Math.max(left, right) > CLIPPED_FALL * width ? length : 0);
  }, 0);
}

// Mean power (bins,) of at most MAX_LOUD_FRAMES of the loud frames.
function spectrumOf(samples, frame, loud, offset) {
  const step = 1 + Math.floor(loud.length / MAX_LOUD_FRAMES);
  const chosen = loud.filter((_, index) => index % step === 0);
  const window = Float64Array.from({ length: frame }, (_, at) => 0.5 - 0.5 * Math.cos((2 * Math.PI * at) / frame));
  const power = new Float64Array(Math.floor(frame / 2) + 1);
  const windowed = (number) =>
    window.map((value, at) => (number === undefined ? 0 : value * (samples[number * frame + at] - offset)));
  for (let index = 0; index < chosen.length; index += 2) {
    // two real frames as one complex one
    const [re, im] = fourier(windowed(chosen[index]), windowed(chosen[index + 1]));
    const square = (bin) => re[bin] ** 2 + im[bin] ** 2;
    for (let bin = 0; bin < power.length; bin++) {
      power[bin] += (square(bin) + square((frame - bin) % frame)) / 2 / chosen.length;
    }
  }
  return power;
}

// Cosines and sines of all multiples of a circle's part.
const circles = new Map();

function circle(size) {
  if (!circles.has(size)) {
    const angles = Array.from({ length: size }, (_, part) => (-2 * Math.PI * part) / size);
    circles.set(size, [Float64Array.from(angles, Math.cos), Float64Array.from(angles, Math.sin)]);
  }
  return circles.get(size);
}

// Discrete Fourier transform of every `step`-th of the numbers, of any length, split by its prime factors.
function fourier(re, im, first = 0, step = 1, size = re.length) {
  const [outRe, outIm] = [new Float64Array(size), new Float64Array(size)];
  if (size === 1) {
    outRe[0] = re[first];
    outIm[0] = im[first];
    return [outRe, outIm];
  }
  const [cosines, sines] = circle(size);
  let factor = 2;
  while (size % factor !== 0) factor++;
  const part = size / factor;
  for (let number = 0; number < factor; number++) {
    const [partRe, partIm] = fourier(re, im, first + number * step, step * factor, part);
    for (let bin = 0, angle = 0, at = 0; bin < size; bin++) {
      outRe[bin] += cosines[angle] * partRe[at] - sines[angle] * partIm[at];
      outIm[bin] += cosines[angle] * partIm[at] + sines[angle] * partRe[at];
      angle = (angle + number) % size;
      at = at + 1 === part ? 0 : at + 1;
    }
  }
  return [outRe, outIm];
}

// Hz of the cliff in a spectrum: filled below, a steep fall, and near-silence from there on; null where there is none.
function cutoffOf(spectrum, bin_hz) {
  const width = Math.max(1, roundHalfEven(CLIFF_WIDTH_HZ / bin_hz));
  if (spectrum.length <= 3 * width) return null;
  const top = Math.max(...spectrum);
  const levels = [...spectrum].map((power) => 10 * Math.log10(power + 1e-15 * top));
  const highest = [];
  for (let bin = levels.length - 1; bin >= 0; bin--)
    highest[bin] = Math.max(levels[bin], highest[bin + 1] ?? -Infinity);
  let best = null;
  for (let start = 0; start + 3 * width <= levels.length; start++) {
    const below = levels.slice(start, start + width);
    const drop = Math.min(...below) - Math.max(...levels.slice(start + 2 * width, start + 3 * width));
    const depth = 10 * Math.log10(mean(below.map(ratio))) - highest[start + 2 * width];
    const isCliff = drop > CLIFF_DROP_DB && depth >= CLIFF_DEPTH_DB;
    if (isCliff && (best === null || drop > best.drop)) {
      best = { drop, level: (Math.min(...below) + highest[start + 2 * width]) / 2 };
    }
  }
  if (best === null) return null;
  const cutoff_hz = levels.findLastIndex((level) => level > best.level) * bin_hz;
  return cutoff_hz >= MIN_CUTOFF_HZ && cutoff_hz < MAX_CUTOFF_HZ ? cutoff_hz : null;
}

// Geometric over arithmetic mean; 0 where there is no energy.
function flatnessOf(spectrum) {
  if (spectrum.length === 0 || !spectrum.every((power) => power > 0)) return 0;
  return Math.exp(mean(spectrum.map(Math.log))) / mean(spectrum);
}
