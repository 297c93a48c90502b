// Detection while the sound goes on: blocks in, each event out once, as soon as it is over.
// As stream_easysed.py and listening_easysed.py.
import { shortestSilence_s } from "./decoding.js";
import { EventFinder } from "./finder.js";
import { Heard } from "./heard.js";
import { inputWarnings, measureInput } from "./input.js";
import { joinArrays } from "./numbers.js";
import { cut, hearWindow, viewStarts } from "./recording.js";
import { Resampler } from "./resampling.js";

const INPUT_CHECK_S = 20;

export class EventStream {
  // detector: see detector.js; rate: Hz of what is pushed; step_s: seconds between windows: shorter ones bring events
  // sooner and cost more.
  constructor(detector, rate, step_s) {
    const { description } = detector;
    const { hop_length_samples: hop, edge_samples: edge, sampling_rate } = description.audio;
    const { context_frames: context, frame_stride: stride, window_frames: longest } = description.windows;
    const step = Math.round((step_s * sampling_rate) / hop);
    Object.assign(this, { detector, description, rate, hop, edge, context, stride });
    this.window = Math.min(longest, Math.ceil((2 * context + step) / stride) * stride);
    this.starts = viewStarts(description);
    this.resampler = rate === sampling_rate ? null : new Resampler(rate, sampling_rate);
    this.heard = new Heard(detector.calibration?.temperature ?? null);
    this.finder = new EventFinder(detector.decoding, (index) => detector.judge.floor(index), detector.about);
    this.samples = new Float32Array(0); // the last ones, at the network's rate
    this.recent = new Float32Array(0); // of them, what the warnings are measured on
    this.first = 0; // number of the first of `samples`
    this.numPushed = this.nextWindow = this.kept = 0;
  }

  get duration() {
    return this.numPushed / this.rate;
  }

  // An event is told at most so many seconds after its class has fallen silent, and the time that the device needs.
  get latency_s() {
    const labels = this.description.labels.map((_, index) => shortestSilence_s(this.detector.decoding, index));
    const { sampling_rate } = this.description.audio;
    const wait = (this.window - this.context) * this.hop + Math.max(...this.starts) + this.edge;
    return Math.max(...labels) + wait / sampling_rate;
  }

  get receipt() {
    return { ...this.detector.receipt, window_s: (this.window * this.hop) / this.description.audio.sampling_rate };
  }

  // The next samples (samples,), mono; resolves to the events that are over by now.
  async push(block) {
    this.numPushed += block.length;
    return this.hear(this.resampler === null ? block : this.resampler.push(block));
  }

  // What is not over, as it would be told if all fell silent now. These are no reports: each event is still told once.
  provisional() {
    return this.heard.recording === null ? [] : this.judged(this.finder.provisional(this.heard), Infinity);
  }

  // The sound is over: resolves to the events that had not ended.
  async close() {
    const events = await this.hear(
      this.resampler === null ? new Float32Array(0) : this.resampler.push(new Float32Array(0), true),
    );
    const total = this.first + this.samples.length;
    if (total === 0) return events;
    const numFrames = 1 + Math.floor(total / this.hop);
    const begin = Math.max(0, Math.ceil((numFrames - this.window) / this.stride) * this.stride);
    while (this.nextWindow < begin) await this.hearNext();
    await this.hearFrames(begin, numFrames, null);
    return [...events, ...this.judged(this.finder.update(this.heard, this.duration), this.duration)];
  }

  async hear(samples) {
    this.samples = joinArrays([this.samples, samples]);
    this.recent = joinArrays([this.recent, samples]).slice(-INPUT_CHECK_S * this.description.audio.sampling_rate);
    const events = [];
    const reach = Math.max(...this.starts) + this.edge;
    while (this.first + this.samples.length >= (this.nextWindow + this.window - 1) * this.hop + reach) {
      await this.hearNext();
      const found = this.finder.update(this.heard);
      this.heard.forget(this.finder.neededFrom(this.heard));
      events.push(...this.judged(found, Infinity));
    }
    return events;
  }

  judged(found, duration) {
    if (found.length === 0) return [];
    const measures = measureInput(this.recent, this.description.audio.sampling_rate);
    return this.detector.judge.events(found, inputWarnings(measures, this.detector.words.input), duration);
  }

  async hearNext() {
    const end = this.nextWindow + this.window;
    await this.hearFrames(this.nextWindow, end, end - this.context);
    const dropped = Math.max(0, this.nextWindow * this.hop - this.edge - this.first); // the last window may begin here
    this.nextWindow += this.window - 2 * this.context;
    this.samples = this.samples.slice(dropped);
    this.first += dropped;
  }

  // The window from log-mel frame `begin` to `end`, of which the frames up to `keep` are new and kept; null = all.
  async hearFrames(begin, end, keep) {
    const { hop, stride } = this;
    const first = (this.kept - begin) / stride;
    const views = new Map();
    let plain = null;
    for (const start of this.starts) {
      const shifted = Math.floor(start / hop);
      const heard = await hearWindow(
        this.detector.run,
        this.description,
        this.detector.masks,
        this.samples,
        this.first,
        start % hop,
        begin + shifted,
        end + shifted,
      );
      if (heard === null) continue;
      const piece = cut(heard, first, keep === null ? heard.frames : (keep - begin) / stride);
      plain ??= piece;
      views.set(start, piece.logits);
    }
    const { mels } = plain;
    const logMel = plain.logMel.subarray((this.kept - begin) * mels, keep === null ? undefined : (keep - begin) * mels);
    const { frame_samples: frameSamples } = this.description.audio;
    const numSamples = this.first + this.samples.length;
    this.heard.add(
      { ...plain, logMel, views, frameSamples, hopSamples: hop, numSamples },
      keep === null ? numSamples : null,
    );
    this.kept = keep ?? end;
  }
}
