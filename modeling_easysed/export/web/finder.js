// Events on a time line that grows, each one once, as soon as its class has been silent for a while.
// As finder_easysed.py.
import { byTime, candidateBoxes, columnOf, quietFrames, shortestSilence_s } from "./decoding.js";
import { floorOf, gatherEvidence } from "./evidence.js";
import { joinArrays } from "./numbers.js";
import { gridStep } from "./recording.js";

const LONGEST_PIECE_S = 60,
  MARGIN_S = 0.75,
  FLOOR_S = 60,
  FLOOR_STEP = 4,
  PADDING_POINTS = 8;
const MEANS = ["exit_spread", "sample_spread", "shift_spread", "contrast_db", "total", "aleatoric", "epistemic"];

// What every mel band holds when nothing sounds, over the last minute.
class FloorMeter {
  constructor(mels, hop_s, melStd) {
    Object.assign(this, { mels, melStd, stop: 0, kept: new Float32Array(0) });
    this.numKept = Math.round(FLOOR_S / hop_s / FLOOR_STEP) * mels;
  }

  add(logMel, first) {
    const total = logMel.length / this.mels;
    const rows = [this.kept];
    for (let row = Math.max(0, this.stop - first); row < total; row += FLOOR_STEP) {
      rows.push(logMel.subarray(row * this.mels, (row + 1) * this.mels));
    }
    this.kept = joinArrays(rows).slice(-this.numKept);
    this.stop = first + total;
  }

  floorDb() {
    const floor = floorOf(this.kept, this.mels);
    return this.melStd === null ? floor : floor.map((value, band) => value * this.melStd[band]);
  }
}

export class EventFinder {
  // decoding: {method, parameters}; floor(classIndex): candidates must score higher; about: {rate, melStd, exit}.
  constructor(decoding, floor, about) {
    Object.assign(this, { decoding, floor, about, starts: null, open: new Map() });
  }

  // Events that are over by now; `duration` of the recording when it is over, else null.
  update(heard, duration = null) {
    const { recording } = heard;
    if (this.starts === null) this.setUp(recording);
    this.meter.add(recording.logMel, heard.first * (recording.frameSamples / recording.hopSamples));
    const found = [];
    for (let index = 0; index < recording.numClasses; index++) {
      const values = columnOf(heard.raw.probabilities, recording.numClasses, index);
      for (const piece of this.pieces(values, index, heard, duration)) {
        found.push(...this.events(heard, values, index, piece, duration));
      }
    }
    return found.sort((a, b) => byTime(a.box, b.box));
  }

  // Candidates that are not over, as they would be if all fell silent now.
  provisional(heard) {
    const found = [];
    for (const [index, start] of (this.starts ?? []).entries()) {
      if (start >= heard.numPoints) continue;
      const values = columnOf(heard.raw.probabilities, heard.recording.numClasses, index);
      const events = this.evidence(heard, this.boxesAbove(heard, values, index, start, heard.numPoints, null));
      if (this.open.has(index)) this.joinOpen(events, index, start);
      found.push(...events);
    }
    return found.sort((a, b) => byTime(a.box, b.box));
  }

  setUp(recording) {
    const { rate, melStd } = this.about;
    this.point_s = gridStep(recording) / rate;
    this.meter = new FloorMeter(recording.mels, recording.hopSamples / rate, melStd);
    const classes = Array.from({ length: recording.numClasses }, (_, index) => index);
    this.starts = classes.map(() => 0);
    this.silence_s = classes.map((index) => shortestSilence_s(this.decoding, index));
    this.needed = this.silence_s.map((silence) => Math.ceil(silence / this.point_s - 1e-6));
  }

  // The number of the oldest output frame that is still of use.
  neededFrom(heard) {
    const oldest = Math.min(...this.starts) - Math.round(MARGIN_S / this.point_s);
    return Math.floor(Math.max(0, oldest) / heard.pointsPerFrame);
  }

  // Pieces of a class that are complete, {start, stop, isCut}, points counted from 0.
  pieces(values, index, heard, duration) {
    const [origin, known, longest] = [heard.firstPoint, heard.numPoints, Math.round(LONGEST_PIECE_S / this.point_s)];
    const quiet = quietFrames(values, this.point_s, this.silence_s[index]);
    const complete = [];
    for (let point = this.starts[index]; point < known; point++) {
      if (quiet[point - origin]) continue;
      let start = point;
      while (point < known && !quiet[point - origin]) point++;
      while (point - start >= longest) {
        const cut = faintest(values, start + Math.floor(longest / 2) - origin, start + longest - origin) + origin;
        complete.push({ start, stop: cut, isCut: true });
        start = cut;
      }
      if (point === known && duration === null) {
        this.starts[index] = start;
        return complete;
      }
      complete.push({ start, stop: point, isCut: false });
    }
    this.starts[index] = Math.max(this.starts[index], known - this.needed[index]);
    return complete;
  }

  // Events of one piece, without one that goes on behind a cut at its end.
  events(heard, values, index, { start, stop, isCut }, duration) {
    const events = this.evidence(heard, this.boxesAbove(heard, values, index, start, stop, duration));
    if (this.open.has(index)) {
      this.joinOpen(events, index, start);
      this.open.delete(index);
    }
    if (isCut && events.length > 0 && events.at(-1).box.offset >= (stop - 0.5) * this.point_s - 1e-9) {
      this.open.set(index, events.pop());
    }
    return events;
  }

  // The event that reaches up to the cut at `start` becomes one with the first of the next events, or stands before it.
  joinOpen(events, index, start) {
    const part = this.open.get(index);
    const goesOn = events.length > 0 && events[0].box.onset <= (start - 0.5) * this.point_s + 1e-9;
    if (goesOn) events[0] = joinedParts(part, events[0]);
    else events.unshift(part);
  }

  // Candidates of one class between two points, with nothing beside them.
  boxesAbove(heard, values, index, start, stop, duration) {
    const low = Math.max(start - PADDING_POINTS, heard.firstPoint);
    const high = Math.min(stop + PADDING_POINTS, heard.numPoints);
    const own = new Float64Array(high - low);
    own.set(values.subarray(start - heard.firstPoint, stop - heard.firstPoint), start - low);
    const borders = Float64Array.from({ length: high - low + 1 }, (_, at) => (low + at - 0.5) * this.point_s);
    if (low === 0) borders[0] = 0;
    if (duration !== null && high === heard.numPoints) borders[high - low] = duration;
    const parameters = Object.fromEntries(
      Object.entries(this.decoding.parameters).map(([name, column]) => [name, [column[index]]]),
    );
    const boxes = candidateBoxes(own, 1, borders, { method: this.decoding.method, parameters });
    return boxes.map((box) => ({ ...box, classIndex: index })).filter((box) => box.score > this.floor(index));
  }

  evidence(heard, boxes) {
    const { rate } = this.about;
    const origin_s = (heard.first * heard.recording.frameSamples) / rate;
    const moved = boxes.map((box) => ({ ...box, onset: box.onset - origin_s, offset: box.offset - origin_s }));
    const about = { ...this.about, floorDb: this.meter.floorDb() };
    const found = gatherEvidence(moved, heard.recording, heard.raw, heard.line, about);
    return found.map((one, at) => ({ ...one, box: boxes[at] }));
  }
}

function faintest(values, start, stop) {
  let lowest = start;
  for (let at = start; at < stop; at++) if (values[at] < values[lowest]) lowest = at;
  return lowest;
}

// Two parts of one event: borders of either end, means weighted by duration.
function joinedParts(first, second) {
  const [before, after] = [first, second].map(({ box }) => box.offset - box.onset);
  const share = after / (before + after);
  const weighted = (a, b) => (1 - share) * a + share * b;
  const means = Object.fromEntries(MEANS.map((name) => [name, weighted(first[name], second[name])]));
  return {
    ...first,
    ...means,
    embedding: first.embedding.map((value, at) => weighted(value, second.embedding[at])),
    box: { ...first.box, offset: second.box.offset, score: weighted(first.box.score, second.box.score) },
    weakest_exit: Math.min(first.weakest_exit, second.weakest_exit),
    offset_spread: second.offset_spread,
    offset_rise: second.offset_rise,
    overlap: Math.max(first.overlap, second.overlap),
  };
}
