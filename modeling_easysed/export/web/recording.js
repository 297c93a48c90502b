// A recording through the network: views (shifts) x windows, and all of it on one time line.
// As recording_easysed.py, windows_easysed.py and shifts_easysed.py; times are counted in samples at the model's rate.
//
// samples of a recording: {
//   views: Map(start -> logits (passes, frames, classes), flat), passes, numClasses,
//   exits: logits (exits, frames, classes) of the view that starts at 0, numExits, embeddings: (frames, width), width,
//   logMel: (log-mel frames, mels), mels, frames: output frames of that view, frameSamples, hopSamples, numSamples }
import { joinArrays, sigmoid } from "./numbers.js";

export function viewStarts(description, shifts = description.shifts.steps) {
  const { sampling_rate, frame_samples } = description.audio;
  const starts = new Set();
  for (let step = -shifts; step <= shifts; step++) {
    const start = Math.round(step * description.shifts.step_s * sampling_rate);
    starts.add(((start % frame_samples) + frame_samples) % frame_samples);
  }
  return [...starts].sort((a, b) => a - b);
}

// [start, stop] in log-mel frames; neighbours overlap by twice the context.
export function planWindows(numFrames, { window_frames: window, context_frames: context, frame_stride: stride }) {
  if (numFrames <= window) return [[0, numFrames]];
  const last = Math.ceil((numFrames - window) / stride) * stride;
  const starts = [];
  for (let start = 0; start < last; start += window - 2 * context) starts.push(start);
  return [...starts, last].map((start) => [start, Math.min(start + window, numFrames)]);
}

// What is kept of every window's output frames, [first, stop]: up to its end less the context.
export function keptParts(numFrames, windows, { context_frames: context, frame_stride: stride }) {
  const starts = windows.map(([start]) => Math.floor(start / stride));
  const cuts = windows.slice(0, -1).map(([, stop]) => Math.floor((stop - context) / stride));
  const ends = [...cuts, starts.at(-1) + numFrames.at(-1)];
  return starts.map((start, index) => [(index === 0 ? 0 : cuts[index - 1]) - start, ends[index] - start]);
}

// The network's outputs for log-mel frames begin .. end - 1 of a view; null where the recording ends before them.
// `offset` is the number of the first of `samples`, which reach as far as the recording does or the window needs.
export async function hearWindow(run, description, masks, samples, offset, start, begin, end) {
  const { hop_length_samples: hop, edge_samples: edge } = description.audio;
  const total = offset + samples.length;
  const stop = Math.min(end, Math.floor((total - start) / hop) + 1);
  if (stop <= begin || total <= start % hop) return null;
  const [from, to] = [start + begin * hop, start + (stop - 1) * hop];
  const edges = new Float32Array(2 * edge);
  const first = Math.max(start % hop, from - edge, offset);
  edges.set(samples.subarray(first - offset, from - offset), edge - (from - first));
  edges.set(samples.subarray(to - offset, to - offset + edge), edge);
  return run(samples.slice(from - offset, to - offset), edges, masks);
}

// All views and windows of a recording (samples,) at the model's rate.
export async function sampleRecording(run, description, masks, samples, { shifts, onProgress } = {}) {
  const { hop_length_samples: hop, frame_samples: frameSamples } = description.audio;
  const windows = planWindows(1 + Math.floor(samples.length / hop), description.windows);
  const starts = viewStarts(description, shifts).filter((start) => start < Math.max(samples.length, 1));
  const views = new Map();
  let plain = null;
  for (const [number, start] of starts.entries()) {
    const pieces = [];
    for (const [index, [begin, end]] of windows.entries()) {
      // A view that starts in the middle of a frame has its windows as many log-mel frames later.
      const shifted = Math.floor(start / hop);
      const heard = await hearWindow(run, description, masks, samples, 0, start % hop, begin + shifted, end + shifted);
      if (heard !== null) pieces.push(heard);
      onProgress?.(number * windows.length + index + 1, starts.length * windows.length);
    }
    if (pieces.length < windows.length) continue;
    const parts = keptParts(
      pieces.map((piece) => piece.frames),
      windows,
      description.windows,
    );
    const kept = pieces.map((piece, index) => cut(piece, ...parts[index]));
    views.set(
      start,
      joinFrames(
        kept.map((piece) => piece.logits),
        kept[0].passes,
        kept[0].numClasses,
      ),
    );
    plain ??= joinPlain(kept, description.windows.frame_stride, pieces, parts);
  }
  return { ...plain, views, frameSamples, hopSamples: hop, numSamples: samples.length };
}

// Frames first .. stop - 1 of what a window gave.
export function cut(piece, first, stop) {
  const own = { frames: piece.frames, first, stop };
  return {
    ...piece,
    frames: stop - first,
    logits: cutFrames(piece.logits, { ...own, layers: piece.passes, columns: piece.numClasses }),
    exits: cutFrames(piece.exits, { ...own, layers: piece.numExits, columns: piece.numClasses }),
    embeddings: piece.embeddings.slice(first * piece.width, stop * piece.width),
  };
}

// (layers, frames, columns) to (layers, stop - first, columns), flat.
export function cutFrames(table, { layers, frames, columns, first, stop }) {
  const parts = [];
  for (let layer = 0; layer < layers; layer++) {
    parts.push(table.subarray((layer * frames + first) * columns, (layer * frames + stop) * columns));
  }
  return joinArrays(parts);
}

// Tables (layers, frames, columns) one after the other in time.
export function joinFrames(tables, layers, columns) {
  if (tables.length === 1) return tables[0];
  const parts = [];
  for (let layer = 0; layer < layers; layer++) {
    for (const table of tables) {
      const size = table.length / layers;
      parts.push(table.subarray(layer * size, (layer + 1) * size));
    }
  }
  return joinArrays(parts);
}

function joinPlain(kept, stride, pieces, parts) {
  const { passes, numClasses, numExits, width, mels } = kept[0];
  const last = pieces.length - 1;
  const logMel = pieces.map((piece, index) =>
    piece.logMel.subarray(
      parts[index][0] * stride * mels,
      index === last ? undefined : parts[index][1] * stride * mels,
    ),
  );
  return {
    passes,
    numClasses,
    numExits,
    width,
    mels,
    frames: kept.reduce((total, piece) => total + piece.frames, 0),
    exits: joinFrames(
      kept.map((piece) => piece.exits),
      numExits,
      numClasses,
    ),
    embeddings: joinArrays(kept.map((piece) => piece.embeddings)),
    logMel: joinArrays(logMel),
  };
}

// ---- one line: {points, pointSamples, probabilities, total, aleatoric, spread}, (points, classes) each, flat

export function gridStep(recording) {
  return recording.views.size === 1 ? recording.frameSamples : recording.hopSamples;
}

export function frameLine(recording, temperature = 1) {
  const { numClasses } = recording;
  const views = [...recording.views].map(([start, logits]) => [start, meansOverPasses(logits, recording, temperature)]);
  const step = gridStep(recording);
  const points = Math.floor(recording.numSamples / step) + 1;
  const [probabilities, aleatoric, spread, total] = Array.from(
    { length: 4 },
    () => new Float32Array(points * numClasses),
  );
  const levels = new Float64Array(views.length);
  for (let point = 0; point < points; point++) {
    const places = views.map(([start, own]) => placeOf(point * step, start, recording.frameSamples, own.frames));
    for (let index = 0; index < numClasses; index++) {
      let [middle, entropy, variance] = [0, 0, 0];
      for (const [view, [, own]] of views.entries()) {
        levels[view] = interpolated(own.means, numClasses, index, places[view]);
        middle += levels[view] / views.length;
        entropy += interpolated(own.entropies, numClasses, index, places[view]) / views.length;
      }
      for (const [view, [, own]] of views.entries()) {
        const inside = interpolated(own.spreads, numClasses, index, places[view]);
        variance += (inside ** 2 + (levels[view] - middle) ** 2) / views.length;
      }
      const at = point * numClasses + index;
      probabilities[at] = Math.min(Math.max(middle, 0), 1);
      total[at] = -(xlogy(probabilities[at]) + xlogy(1 - probabilities[at]));
      aleatoric[at] = Math.min(entropy, total[at]);
      spread[at] = Math.sqrt(variance);
    }
  }
  return { points, pointSamples: step, probabilities, total, aleatoric, spread };
}

const xlogy = (value) => (value === 0 ? 0 : value * Math.log(value));

function placeOf(time, start, frameSamples, frames) {
  const position = Math.min(Math.max((time - start) / frameSamples, 0), frames - 1);
  const left = Math.floor(position);
  return { left, right: Math.min(left + 1, frames - 1), weight: position - left };
}

function interpolated(table, columns, column, { left, right, weight }) {
  const value = table[left * columns + column];
  return value + weight * (table[right * columns + column] - value);
}

// Mean, entropy and deviation (frames, classes) over passes.
function meansOverPasses(logits, { passes, numClasses }, temperature) {
  const size = logits.length / passes;
  const [means, entropies, spreads] = Array.from({ length: 3 }, () => new Float32Array(size));
  const values = new Float64Array(passes);
  for (let at = 0; at < size; at++) {
    let [sum, entropy, squares] = [0, 0, 0];
    for (let pass = 0; pass < passes; pass++) {
      const logit = logits[pass * size + at] / temperature;
      values[pass] = sigmoid(logit);
      sum += values[pass];
      // softplus less the logit's share, for any finite logit
      entropy += Math.max(logit, 0) + Math.log1p(Math.exp(-Math.abs(logit))) - logit * values[pass];
    }
    means[at] = sum / passes;
    entropies[at] = entropy / passes;
    for (let pass = 0; pass < passes; pass++) squares += (values[pass] - means[at]) ** 2;
    spreads[at] = Math.sqrt(squares / passes);
  }
  return { means, entropies, spreads, frames: size / numClasses };
}
