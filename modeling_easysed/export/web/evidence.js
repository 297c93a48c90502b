// What is measured on one candidate event, as evidence_easysed.py measures it.
import { clip, deviation, mean, quantileOfSorted, roundHalfEven, sigmoid } from "./numbers.js";
import { columnOf } from "./decoding.js";
import { gridStep } from "./recording.js";

const LEVEL_LIMIT = 1e-3,
  BORDER_REACH_S = 0.5,
  FLOOR_QUANTILE = 0.1;

export function toLogit(probability) {
  const clipped = clip(probability, LEVEL_LIMIT, 1 - LEVEL_LIMIT);
  return Math.log(clipped / (1 - clipped));
}

// Of every box, decoded from the line `raw`; `line` is the one after the temperature. `about`: {rate, melStd, exit,
// floorDb}, floorDb (mels,) or undefined = that of this recording.
export function gatherEvidence(boxes, recording, raw, line, about) {
  if (boxes.length === 0) return [];
  const measured = {
    recording,
    raw,
    line,
    exit: about.exit,
    frame_s: recording.frameSamples / about.rate,
    grid_s: gridStep(recording) / about.rate,
    hop_s: recording.hopSamples / about.rate,
    views: [...recording.views].map(([start, logits]) => ({ first_s: start / about.rate, logits })),
    aboveFloor: aboveFloor(recording, about),
  };
  return boxes.map((box) => evidenceOf(box, measured));
}

function aboveFloor({ logMel, mels }, { melStd, floorDb }) {
  const levels = logMel.map((value, at) => value * (melStd === null ? 1 : melStd[at % mels]));
  const floor = floorDb ?? floorOf(levels, mels);
  return levels.map((value, at) => value - floor[at % mels]);
}

// What every mel band holds when nothing sounds, (mels,).
export function floorOf(levels, mels) {
  return Array.from({ length: mels }, (_, band) =>
    quantileOfSorted(columnOf(levels, mels, band).sort(), FLOOR_QUANTILE),
  );
}

function evidenceOf(box, measured) {
  const { recording, raw, line } = measured;
  const { numClasses, mels } = recording;
  const own = box.classIndex;
  const inside = framesInside(box, 0, measured.frame_s, recording.frames);
  const onGrid = framesInside(box, 0, measured.grid_s, raw.points);
  const exitLevels = levelsOf(recording.exits, recording.numExits, recording.frames, numClasses, own, inside);
  const samples = around(box, measured);
  const levels = samples.map(({ first_s, frames, values }) => {
    const [start, stop] = framesInside(box, first_s, measured.frame_s, frames);
    return values.map((curve) => toLogit(mean(curve.subarray(start, stop))));
  });
  const viewLevels = levels.map(mean);
  const within = levels.map((row, view) => mean(row.map((level) => (level - viewLevels[view]) ** 2)));
  const meanLine = columnOf(raw.probabilities, numClasses, own);
  const [onset, offset] = [true, false].map((rising) => borderSpread(box, rising, samples, meanLine, measured));
  const meanOf = (table, index) => meanInside(table, numClasses, index, onGrid);
  const others = Array.from({ length: numClasses }, (_, index) => index).filter((index) => index !== own);
  const [total, aleatoric] = [meanOf(line.total, own), meanOf(line.aleatoric, own)];
  const [low, high] = framesInside(box, 0, measured.hop_s, measured.aboveFloor.length / mels);
  return {
    box,
    exit: measured.exit,
    weakest_exit: Math.min(...exitLevels),
    exit_spread: deviation(exitLevels),
    sample_spread: Math.sqrt(mean(within)),
    shift_spread: deviation(viewLevels),
    onset_spread: onset.spread,
    offset_spread: offset.spread,
    onset_rise: onset.rise,
    offset_rise: offset.rise,
    overlap: others.length > 0 ? Math.max(...others.map((index) => meanOf(raw.probabilities, index))) : 0,
    contrast_db: contrast(measured.aboveFloor.slice(low * mels, high * mels)),
    total,
    aleatoric,
    epistemic: total - aleatoric,
    embedding: Array.from({ length: recording.width }, (_, index) =>
      meanInside(recording.embeddings, recording.width, index, inside),
    ),
  };
}

// Mean of one column of (rows, columns) over rows start .. stop - 1.
function meanInside(table, columns, column, [start, stop]) {
  let sum = 0;
  for (let row = start; row < stop; row++) sum += table[row * columns + column];
  return sum / (stop - start);
}

// Level inside of every layer of logits (layers, frames, classes).
function levelsOf(logits, layers, frames, numClasses, own, [start, stop]) {
  return Array.from({ length: layers }, (_, layer) => {
    let sum = 0;
    for (let frame = start; frame < stop; frame++) sum += sigmoid(logits[(layer * frames + frame) * numClasses + own]);
    return toLogit(sum / (stop - start));
  });
}

// Frames whose centre, first_s + k x frame_s, lies in the box, [start, stop]; at least one.
export function framesInside(box, first_s, frame_s, numFrames) {
  const start = clip(Math.ceil((box.onset - first_s) / frame_s - 1e-6), 0, numFrames - 1);
  const stop = clip(Math.floor((box.offset - first_s) / frame_s + 1e-6) + 1, start + 1, numFrames);
  return [start, stop];
}

// The box's class in and around it: per view {first_s: the first frame's centre, frames, values: one curve per pass}.
function around(box, { views, recording, frame_s }) {
  const margin_s = BORDER_REACH_S + 2 * frame_s;
  return views.map(({ first_s, logits }) => {
    const numFrames = logits.length / recording.passes / recording.numClasses;
    const start = Math.max(0, Math.trunc((box.onset - margin_s - first_s) / frame_s));
    const stop = Math.min(numFrames, Math.trunc((box.offset + margin_s - first_s) / frame_s) + 1);
    const values = Array.from({ length: recording.passes }, (_, pass) =>
      Float64Array.from({ length: stop - start }, (_, index) =>
        sigmoid(logits[(pass * numFrames + start + index) * recording.numClasses + box.classIndex]),
      ),
    );
    return { first_s: first_s + start * frame_s, frames: stop - start, values };
  });
}

// Spread and rise of a border, seconds: in every sample it is where its curve crosses the mean line's value there.
function borderSpread(box, rising, samples, meanLine, { frame_s, grid_s }) {
  const border = rising ? box.onset : box.offset;
  const level = valueAt(meanLine, border / grid_s);
  let squares = 0;
  for (const { first_s, values } of samples) {
    const start = Math.max(0, Math.trunc((border - BORDER_REACH_S - first_s) / frame_s));
    const stop = Math.trunc((border + BORDER_REACH_S - first_s) / frame_s) + 2;
    for (const curve of values) {
      let nearest = BORDER_REACH_S;
      for (let frame = start; frame + 1 < Math.min(stop, curve.length); frame++) {
        const [left, right] = [curve[frame], curve[frame + 1]];
        const crosses = rising ? left < level && right >= level : left >= level && right < level;
        if (!crosses) continue;
        const time = first_s + (frame + (level - left) / (right - left)) * frame_s;
        nearest = Math.min(nearest, Math.abs(time - border));
      }
      squares += nearest ** 2 / values.length;
    }
  }
  const last = meanLine.length - 1;
  const here = clip(Math.floor(border / grid_s + 0.5 + 1e-6), 0, last);
  const reach = Math.max(1, roundHalfEven(frame_s / grid_s));
  const [low, high] = [Math.max(0, here - reach), Math.min(last, here + reach)];
  const slope = Math.abs(meanLine[high] - meanLine[low]) / Math.max((high - low) * grid_s, 1e-9);
  const top = meanLine.subarray(...framesInside(box, 0, grid_s, meanLine.length)).reduce((a, b) => Math.max(a, b));
  return { spread: Math.sqrt(squares / samples.length), rise: Math.min(BORDER_REACH_S, top / Math.max(slope, 1e-9)) };
}

function valueAt(line, position) {
  const place = clip(position, 0, line.length - 1);
  const left = Math.floor(place);
  return line[left] + (place - left) * (line[Math.min(left + 1, line.length - 1)] - line[left]);
}

// Mean of the loudest tenth of the cells.
function contrast(cells) {
  const count = Math.max(1, Math.floor(cells.length / 10));
  return mean(cells.sort().subarray(cells.length - count));
}
