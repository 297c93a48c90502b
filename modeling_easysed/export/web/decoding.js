// Frame probabilities to events, as decoding_easysed.py does it: there stands why.
import { clip, quantileOfSorted, roundHalfEven } from "./numbers.js";

const SMALLEST_STEP = 1e-9;
const QUIET_LEVEL = 0.02,
  QUIET_S = 1.0;

// All candidate boxes, sorted by onset: {onset, offset, classIndex, score}.
// probabilities: (frames, classes), flat; borders: (frames + 1) seconds;
// decoding: {method, parameters: {name: [one per class]}}.
export function candidateBoxes(probabilities, numClasses, borders, decoding) {
  const numFrames = borders.length - 1;
  const frame_s = medianStep(borders);
  const find = decoding.method === "threshold" ? thresholdEvents : changePointBoxes;
  const boxes = [];
  for (let index = 0; index < numClasses; index++) {
    const own = Object.fromEntries(Object.entries(decoding.parameters).map(([name, values]) => [name, values[index]]));
    const values = columnOf(probabilities, numClasses, index, numFrames);
    for (const { onset, offset, score } of find(values, own, frame_s)) {
      if (borders[offset] - borders[onset] < own.min_duration_s - 5e-7) continue;
      boxes.push({ onset: borders[onset], offset: borders[offset], classIndex: index, score: clip(score, 0, 1) });
    }
  }
  return boxes.sort(byTime);
}

export const byTime = (a, b) =>
  a.onset - b.onset || a.offset - b.offset || a.classIndex - b.classIndex || a.score - b.score;

export function columnOf(table, numColumns, index, numRows = table.length / numColumns) {
  const column = new Float64Array(numRows);
  for (let row = 0; row < numRows; row++) column[row] = table[row * numColumns + index];
  return column;
}

// Borders of frames centred at k x frame_s: the first is cut at 0, the last ends with the recording.
export function frameBorders(numFrames, frame_s, duration) {
  const borders = Float64Array.from({ length: numFrames + 1 }, (_, index) => (index - 0.5) * frame_s);
  borders[0] = 0;
  borders[numFrames] = duration;
  return borders;
}

export function shortestSilence_s(decoding, index) {
  const names = ["filter_s", "median_s", "max_gap_s"].filter((name) => name in decoding.parameters);
  return Math.max(
    QUIET_S,
    names.reduce((total, name) => total + decoding.parameters[name][index], 0),
  );
}

function medianStep(borders) {
  const steps = Float64Array.from({ length: borders.length - 1 }, (_, index) => borders[index + 1] - borders[index]);
  return quantileOfSorted(steps.sort(), 0.5);
}

// ---- boxes: one class at a time; borders are counted in frames, a box of frames 3 and 4 has onset 3 and offset 5

function changePointBoxes(probabilities, own, frame_s) {
  const quiet = quietFrames(probabilities, frame_s, Math.max(QUIET_S, own.filter_s));
  const values = probabilities.map((value, frame) => (quiet[frame] ? 0 : value));
  const sums = cumulated(values);
  const steps = stepFilter(sums, Math.max(1, roundHalfEven(own.filter_s / frame_s)));
  const spans = joinedSpans(risesToFalls(steps), sums, cumulated(quiet), own);
  if (spans.length === 0) return [];
  return movedBorders(spans, values, quiet, own.edge_level).map((span) => {
    const inside = values.slice(span.onset, span.offset).sort();
    return { ...span, score: quantileOfSorted(inside, own.score_quantile) };
  });
}

// Which frames belong to a silence of the class, as every frame outside the recording does.
export function quietFrames(values, frame_s, silence_s) {
  const needed = Math.ceil(silence_s / frame_s - 1e-6);
  const quiet = new Uint8Array(values.length);
  for (let start = 0; start < values.length; start++) {
    let stop = start;
    while (stop < values.length && values[stop] < QUIET_LEVEL) stop++;
    if (stop - start >= needed) quiet.fill(1, start, stop);
    start = stop;
  }
  return quiet;
}

function cumulated(values) {
  const sums = new Float64Array(values.length + 1);
  for (let frame = 0; frame < values.length; frame++) sums[frame + 1] = sums[frame] + values[frame];
  return sums;
}

// Mean of the frames after every border less the mean of as many before it; 0 counts outside the recording.
function stepFilter(sums, reach) {
  const last = sums.length - 1;
  return sums.map(
    (sum, border) => (sums[Math.min(border + reach, last)] - 2 * sum + sums[Math.max(border - reach, 0)]) / reach,
  );
}

// From a rise to the fall that follows it; of several in a row the steepest counts.
function risesToFalls(steps) {
  const points = [];
  for (let border = 0; border < steps.length; border++) {
    const [left, step, right] = [steps[border - 1] ?? 0, steps[border], steps[border + 1] ?? 0];
    const isRise = step > left && step >= right && step > SMALLEST_STEP;
    const isFall = step <= left && step < right && step < -SMALLEST_STEP;
    if (!isRise && !isFall) continue;
    const point = { border, isRise, size: Math.abs(step) };
    const before = points.at(-1);
    if (before === undefined || before.isRise !== isRise) points.push(point);
    else if (point.size > before.size) points[points.length - 1] = point;
  }
  const spans = [];
  for (let index = 0; index + 1 < points.length; index++) {
    if (points[index].isRise) spans.push({ onset: points[index].border, offset: points[index + 1].border });
  }
  return spans;
}

function joinedSpans(spans, sums, silences, own) {
  const meanInside = (onset, offset) => (sums[offset] - sums[onset]) / Math.max(offset - onset, 1);
  for (;;) {
    const levels = spans.map(({ onset, offset }) => meanInside(onset, offset));
    const isSplit = spans.slice(1).map(({ onset }, index) => {
      const start = spans[index].offset;
      const dip = meanInside(start, onset);
      const higher = Math.max(levels[index], levels[index + 1]);
      const isSmall = higher - dip < own.absolute_limit || higher < own.relative_limit * dip;
      return !isSmall || silences[start] !== silences[onset];
    });
    if (isSplit.every(Boolean)) return spans;
    const grown = [{ ...spans[0] }];
    isSplit.forEach((split, index) => {
      if (split) grown.push({ ...spans[index + 1] });
      else grown.at(-1).offset = spans[index + 1].offset;
    });
    spans = grown;
  }
}

// Every border goes to where the probability crosses the edge level of its box.
function movedBorders(spans, values, quiet, edgeLevel) {
  const inner = spans.map(({ onset, offset }) => {
    let [squares, sum] = [0, 0];
    for (let frame = onset; frame < offset; frame++) {
      squares += values[frame] ** 2;
      sum += values[frame];
    }
    const edge = edgeLevel * (squares / Math.max(sum, SMALLEST_STEP));
    let [first, stop] = [offset, onset];
    for (let frame = onset; frame < offset; frame++) {
      if (values[frame] < edge) continue;
      first = Math.min(first, frame);
      stop = frame + 1;
    }
    return { edge, first, stop };
  });
  const moved = [];
  spans.forEach(({ onset, offset }, index) => {
    const { edge, first, stop } = inner[index];
    const isBelow = (frame) => values[frame] < edge || quiet[frame];
    let newOffset = stop;
    if (stop === offset) {
      const limit = Math.max(index + 1 < spans.length ? inner[index + 1].first : values.length, offset);
      while (newOffset < limit && !isBelow(newOffset)) newOffset++;
    }
    let newOnset = first;
    if (first === onset) {
      const limit = moved.length > 0 ? moved.at(-1).offset : 0;
      if (limit > onset) newOnset = limit;
      else while (newOnset > limit && !isBelow(newOnset - 1)) newOnset--;
    }
    moved.push({ onset: newOnset, offset: newOffset });
  });
  return moved;
}

// ---- threshold, median filter and hysteresis

function thresholdEvents(probabilities, own, frame_s) {
  const smooth = medianFilter(probabilities, own.median_s / frame_s);
  const low = own.low_ratio * own.threshold;
  const events = [];
  for (let onset = 0; onset < smooth.length; onset++) {
    let [offset, score] = [onset, 0];
    while (offset < smooth.length && smooth[offset] > low) score = Math.max(score, smooth[offset++]);
    if (score > own.threshold) {
      const before = events.at(-1);
      if (before !== undefined && onset - before.offset <= own.max_gap_s / frame_s + 1e-6) {
        before.offset = offset;
        before.score = Math.max(before.score, score);
      } else events.push({ onset, offset, score });
    }
    onset = offset;
  }
  return events;
}

function medianFilter(values, numFrames) {
  const half = Math.floor(roundHalfEven(numFrames) / 2);
  if (half === 0) return values;
  const last = values.length - 1;
  return values.map((_, frame) => {
    const around = Float64Array.from(
      { length: 2 * half + 1 },
      (_, index) => values[clip(frame + index - half, 0, last)],
    );
    return around.sort()[half];
  });
}
