// Recent frames of a recording that goes on: the passes of every view, and both lines that come from them.
// As `Heard` of listening_easysed.py.
import { joinArrays } from "./numbers.js";
import { cutFrames, frameLine, gridStep, joinFrames } from "./recording.js";

const TABLES = ["probabilities", "total", "aleatoric", "spread"];

export class Heard {
  // `first`: number of the oldest output frame that is kept; `numPoints` points of the grid are known, forgotten ones
  // included.
  constructor(temperature) {
    Object.assign(this, { temperature, first: 0, numPoints: 0, recording: null, raw: null, line: null });
  }

  get pointsPerFrame() {
    return this.recording.frameSamples / gridStep(this.recording);
  }

  get firstPoint() {
    return this.first * this.pointsPerFrame;
  }

  // The next window's frames; `numSamples` is the recording's length when these were the last, else null.
  add(piece, numSamples) {
    this.recording = this.recording === null ? piece : joined(this.recording, piece);
    const { recording, pointsPerFrame } = this;
    const { frameSamples, passes, numClasses } = recording;
    const step = gridStep(recording);
    const ends = [...recording.views].map(
      ([start, logits]) => start + (this.first + logits.length / passes / numClasses - 1) * frameSamples,
    );
    const stop = Math.floor((numSamples ?? Math.min(...ends)) / step) + 1;
    if (stop <= this.numPoints) return;
    const begin = Math.max(Math.floor(this.numPoints / pointsPerFrame) - 1, this.first);
    const recent = from(recording, begin - this.first, (stop - 1) * step - begin * frameSamples);
    const skip = this.numPoints - begin * pointsPerFrame;
    this.raw = grown(this.raw, frameLine(recent), skip, numClasses);
    this.line =
      this.temperature === null ? this.raw : grown(this.line, frameLine(recent, this.temperature), skip, numClasses);
    this.numPoints = stop;
  }

  // Drops output frames before number `first`; those that the next point may need stay.
  forget(first) {
    if (this.recording === null) return;
    const dropped = Math.min(first, Math.floor(this.numPoints / this.pointsPerFrame) - 1) - this.first;
    if (dropped <= 0) return;
    const { recording, pointsPerFrame } = this;
    const stride = recording.frameSamples / recording.hopSamples;
    const kept = from(recording, dropped, recording.numSamples);
    this.recording = { ...kept, logMel: recording.logMel.slice(dropped * stride * recording.mels) };
    const skip = dropped * pointsPerFrame;
    const isOne = this.raw === this.line;
    this.raw = grown(null, this.raw, skip, recording.numClasses);
    this.line = isOne ? this.raw : grown(null, this.line, skip, recording.numClasses);
    this.first += dropped;
  }
}

// Frames from `frame` on; the log-mel frames are left as they are.
function from(recording, frame, numSamples) {
  const { passes, numClasses, numExits, frames, width } = recording;
  const views = [...recording.views].map(([start, logits]) => {
    const own = logits.length / passes / numClasses;
    return [start, cutFrames(logits, { layers: passes, frames: own, columns: numClasses, first: frame, stop: own })];
  });
  const exits = { layers: numExits, frames, columns: numClasses, first: frame, stop: frames };
  return {
    ...recording,
    views: new Map(views),
    exits: cutFrames(recording.exits, exits),
    embeddings: recording.embeddings.slice(frame * width),
    frames: frames - frame,
    numSamples,
  };
}

function joined(before, piece) {
  const { passes, numClasses, numExits } = before;
  const views = [...before.views].map(([start, logits]) => [
    start,
    joinFrames([logits, piece.views.get(start) ?? new Float32Array(0)], passes, numClasses),
  ]);
  return {
    ...before,
    views: new Map(views),
    exits: joinFrames([before.exits, piece.exits], numExits, numClasses),
    embeddings: joinArrays([before.embeddings, piece.embeddings]),
    logMel: joinArrays([before.logMel, piece.logMel]),
    frames: before.frames + piece.frames,
  };
}

// A line with the points of another from number `skip` on behind it.
function grown(line, added, skip, numClasses) {
  const result = { pointSamples: added.pointSamples };
  for (const name of TABLES) {
    const own = added[name].slice(skip * numClasses);
    result[name] = line === null ? own : joinArrays([line[name], own]);
  }
  result.points = result.probabilities.length / numClasses;
  return result;
}
