// One microphone in the worker: events from the stream, and ahead of them a line that may still move.
import { rounded } from "./numbers.js";
import { frameLine, hearWindow, sampleRecording } from "./recording.js";
import { EventStream } from "./stream.js";

const HEARD_AGAIN_S = 6,
  SENT_S = 3.4,
  NOW_S = 0.4,
  HEARS = 0.5;
const STEPS_S = [0.2, 0.5, 1, 2],
  MOST_WORK = 0.4; // of the time that passes

// The shortest step between windows that this device can afford.
export async function affordableStep(detector) {
  const { context_frames: context } = detector.description.windows;
  const { hop_length_samples: hop } = detector.description.audio;
  const frames = 2 * context + 1;
  const silence = new Float32Array(frames * hop);
  let needed_s = Infinity;
  for (let run = 0; run < 2; run++) {
    // the first one warms up
    const begin = performance.now();
    await hearWindow(detector.run, detector.description, detector.masks, silence, 0, 0, 0, frames);
    needed_s = (5 * (performance.now() - begin)) / 1000; // four views and the line
  }
  return STEPS_S.find((step_s) => needed_s < MOST_WORK * step_s) ?? STEPS_S.at(-1);
}

export class LiveSession {
  constructor(detector, rate, step_s) {
    this.detector = detector;
    this.stream = new EventStream(detector, rate, step_s);
    this.events = [];
  }

  get about() {
    const { windows, audio, labels } = this.detector.description;
    const context_s = (windows.context_frames * audio.hop_length_samples) / audio.sampling_rate;
    return { latency_s: this.stream.latency_s, context_s, frame_s: audio.frame_duration_s, labels };
  }

  // The next samples (samples,): what is told.
  async hear(block) {
    const known = this.stream.heard.numPoints;
    const events = await this.stream.push(block);
    this.events.push(...events);
    const provisional = this.stream.heard.numPoints > known ? this.stream.provisional() : undefined;
    const line = this.stream.recent.length >= this.detector.rate / 2 ? await this.line() : {};
    return { time: this.stream.duration, events, provisional, ...line };
  }

  async close() {
    const events = await this.stream.close();
    this.events.push(...events);
    const detection = {
      file: "microphone",
      duration: rounded(this.stream.duration, 6),
      sampling_rate: this.stream.rate,
      events: this.events,
      warnings: this.detector.modelWarnings,
      receipt: this.stream.receipt,
      decision_rule: this.detector.sentences,
    };
    return { time: this.stream.duration, events, provisional: [], detection };
  }

  // Probability and spread over the last seconds, heard again with every block, and what sounds right now.
  async line() {
    const { detector, stream } = this;
    const { description, rate } = detector;
    const frame = description.audio.frame_samples;
    const total = stream.first + stream.samples.length;
    const from = Math.ceil(Math.max(0, total - Math.min(HEARD_AGAIN_S * rate, stream.recent.length)) / frame) * frame;
    const samples = stream.recent.slice(stream.recent.length - (total - from));
    const recording = await sampleRecording(detector.run, description, detector.masks, samples, { shifts: 0 });
    const line = frameLine(recording, detector.calibration?.temperature ?? 1);
    const { numClasses } = recording;
    const count = Math.min(line.points, Math.round((SENT_S * rate) / frame));
    const last = (name) => line[name].slice((line.points - count) * numClasses);
    return {
      line: {
        first: from / frame + line.points - count,
        count,
        probabilities: last("probabilities"),
        spread: last("spread"),
      },
      hears: loudest(line.probabilities, numClasses, Math.round((NOW_S * rate) / frame)),
    };
  }
}

// Indices of the classes that sound in the last frames, the most probable first.
function loudest(probabilities, numClasses, numFrames) {
  const recent = probabilities.slice(-numFrames * numClasses);
  const peaks = Array.from({ length: numClasses }, (_, index) =>
    recent.reduce((peak, value, at) => (at % numClasses === index ? Math.max(peak, value) : peak), 0),
  );
  return [...peaks.keys()].filter((index) => peaks[index] >= HEARS).sort((a, b) => peaks[b] - peaks[a]);
}
