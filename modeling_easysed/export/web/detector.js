// From sound to what `easysed detect --format json` writes, with the pipeline's default setting.
import { makeClip } from "./audio.js";
import { Calibration } from "./calibration.js";
import { largest } from "./columns.js";
import { candidateBoxes, frameBorders } from "./decoding.js";
import { gatherEvidence } from "./evidence.js";
import { Judge } from "./judging.js";
import { seedMasks } from "./masks.js";
import { rounded } from "./numbers.js";
import { frameLine, sampleRecording } from "./recording.js";

export const MAX_DURATION_S = 600; // the pipeline hears longer recordings in parts
const PICTURE_COLUMNS = 1000;

export class Detector {
  // description: easysed.json; words: words.json; run: see network.js.
  constructor(description, words, run) {
    Object.assign(this, { description, words, run });
    this.rate = description.audio.sampling_rate;
    this.masks = seedMasks(description.masks);
    const { decoding, calibration, decisions, model, labels } = description;
    this.decoding = { method: decoding.config?.method ?? "boxes", parameters: decoding.parameters };
    const setting = `mc${description.shifts.steps > 0 ? "+shifts" : ""}`;
    this.rule = decisions[setting];
    this.calibration = calibration === null ? null : new Calibration(calibration, model.exit, setting, labels);
    this.judge = new Judge(description, words, this.calibration, this.rule);
    const { mel_std_db: melStd } = description.audio;
    this.about = { rate: this.rate, melStd, exit: model.exit };
  }

  get modelWarnings() {
    return this.rule === undefined ? [this.words.no_calibration] : this.rule.warnings;
  }

  get sentences() {
    return this.rule?.sentences ?? [];
  }

  get receipt() {
    return this.description.receipt;
  }

  // Channels [(samples,), ...] at `rate` Hz; resolves to {detection, picture}. Rejects with one sentence.
  async detect(channels, rate, file, onProgress) {
    if (channels[0].length / rate > MAX_DURATION_S) {
      throw new Error("The recording is longer than ten minutes: use the command easysed detect, or cut it.");
    }
    const clip = makeClip(channels, rate, this.rate, this.words);
    const recording = await sampleRecording(this.run, this.description, this.masks, clip.samples, { onProgress });
    const raw = frameLine(recording);
    const line = this.calibration === null ? raw : frameLine(recording, this.calibration.temperature);
    const borders = frameBorders(raw.points, raw.pointSamples / this.rate, clip.duration);
    const boxes = candidateBoxes(raw.probabilities, recording.numClasses, borders, this.decoding).filter(
      (box) => box.score > this.judge.floor(box.classIndex),
    );
    const found = gatherEvidence(boxes, recording, raw, line, this.about);
    const detection = {
      file,
      duration: rounded(clip.duration, 6),
      sampling_rate: clip.originalRate,
      events: this.judge.events(found, clip.warnings, clip.duration),
      warnings: [...clip.warnings, ...this.modelWarnings],
      receipt: this.receipt,
      decision_rule: this.sentences,
    };
    return { detection, picture: this.picture(clip, recording, line) };
  }

  // What is drawn: curves on one line, the log-mel frames and the waveform in columns.
  picture(clip, recording, line) {
    const { mels, numClasses } = recording;
    const step = Math.ceil(recording.logMel.length / mels / PICTURE_COLUMNS);
    const size = Math.ceil(clip.samples.length / PICTURE_COLUMNS);
    const { mel_mean_db: means, mel_std_db: stds } = this.description.audio;
    const logMel = largest(recording.logMel, mels, step);
    return {
      labels: this.description.labels,
      numClasses,
      duration: clip.duration,
      point_s: line.pointSamples / this.rate,
      probabilities: line.probabilities,
      spread: line.spread,
      mels,
      logMel: means === null ? logMel : logMel.map((value, at) => value * stds[at % mels] + means[at % mels]),
      highest: largest(clip.samples, 1, size),
      lowest: largest(
        clip.samples.map((value) => -value),
        1,
        size,
      ).map((value) => -value),
    };
  }
}
