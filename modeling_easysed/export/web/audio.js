// What a recording is before the network hears it: its own rate, its channels as one, what may be wrong with it.
// As audio_easysed.py; the sentences come from Python.
import { filled } from "./numbers.js";
import { inputWarnings, measureInput } from "./input.js";
import { resample } from "./resampling.js";

const SHORT_CLIP_S = 0.5,
  SILENT_LEVEL = 1e-4,
  LOUD_PEAK = 4;
const CLIPPED_LEVEL = 0.9999,
  CLIPPED_RUN = 3,
  CLIPPED_SHARE = 1e-4;
const DEFAULT_RATE = 48000;
const MPEG_RATES = [[11025, 12000, 8000], null, [22050, 24000, 16000], [44100, 48000, 32000]];
const OPUS_RATES = [8000, 12000, 16000, 24000, 48000];

// Hz of a sound file (bytes,), from its header: WAV, FLAC, Ogg (Vorbis, Opus, FLAC) or MP3; else 48000, to which the
// browser then resamples.
export function sniffRate(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const found = wavRate(view) ?? flacRate(view, 0) ?? oggRate(view) ?? mp3Rate(view);
    return found >= 1000 && found <= 1_000_000 ? found : DEFAULT_RATE;
  } catch (error) {
    if (error instanceof RangeError) return DEFAULT_RATE; // the header is cut off
    throw error;
  }
}

const textAt = (view, at, length) =>
  at + length > view.byteLength
    ? ""
    : String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, length));

function wavRate(view) {
  if (textAt(view, 0, 4) !== "RIFF" || textAt(view, 8, 4) !== "WAVE") return null;
  for (let at = 12; at + 16 <= view.byteLength;) {
    if (textAt(view, at, 4) === "fmt ") return view.getUint32(at + 12, true);
    at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) % 2);
  }
  return null;
}

function flacRate(view, at) {
  return textAt(view, at, 4) === "fLaC" && at + 21 <= view.byteLength ? view.getUint32(at + 18) >>> 12 : null;
}

function oggRate(view) {
  if (textAt(view, 0, 4) !== "OggS") return null;
  const at = 27 + view.getUint8(26);
  if (textAt(view, at + 1, 6) === "vorbis") return view.getUint32(at + 12, true);
  if (textAt(view, at + 1, 4) === "FLAC") return flacRate(view, at + 9);
  if (textAt(view, at, 8) !== "OpusHead") return null;
  const wanted = view.getUint32(at + 12, true);
  return OPUS_RATES.find((rate) => rate >= wanted) ?? DEFAULT_RATE;
}

function mp3Rate(view) {
  let at = 0;
  if (textAt(view, 0, 3) === "ID3") {
    const size = [6, 7, 8, 9].reduce((sum, place) => (sum << 7) | (view.getUint8(place) & 0x7f), 0);
    at = 10 + size;
  }
  for (const stop = Math.min(at + 4096, view.byteLength - 3); at < stop; at++) {
    const head = view.getUint32(at);
    const [version, layer, index] = [(head >>> 19) & 3, (head >>> 17) & 3, (head >>> 10) & 3];
    if (head >>> 21 === 0x7ff && version !== 1 && layer !== 0 && index !== 3) return MPEG_RATES[version][index];
  }
  return null;
}

// Channels [(samples,), ...] at `rate` Hz as one clip at the model's rate:
// {samples, duration, originalRate, warnings}. Throws an Error with one sentence.
export function makeClip(channels, rate, modelRate, words) {
  const mono = mixed(channels);
  const warnings = levelWarnings(channels, mono, rate, modelRate, words);
  const samples = resample(mono, rate, modelRate);
  const given = new Set(warnings.map(keyWord));
  if (warnings.some((one) => one.startsWith("silent"))) given.add("too quiet");
  const measured = inputWarnings(measureInput(samples, modelRate), words.input);
  return {
    samples,
    duration: mono.length / rate,
    originalRate: rate,
    warnings: [...warnings, ...measured.filter((one) => !given.has(keyWord(one)))],
  };
}

const keyWord = (warning) => warning.split(":", 1)[0];

export function mixed(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, at) => channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length);
}

// What `checked_warnings` of audio_easysed.py says.
export function levelWarnings(channels, mono, rate, modelRate, words) {
  if (mono.length === 0) throw new Error("The recording has no samples: record or copy it again.");
  let [lowest, highest, clipped] = [Infinity, -Infinity, 0];
  for (const channel of channels) {
    const [low, high] = range(channel);
    if (!Number.isFinite(low)) throw new Error("The recording has samples that are no numbers: repair or cut it.");
    [lowest, highest] = [Math.min(lowest, low), Math.max(highest, high)];
    clipped += countInRuns(channel);
  }
  const sentences = words.audio;
  const found = [];
  const share = clipped / (mono.length * channels.length);
  const peak = Math.max(highest, -lowest);
  if ((highest - lowest) / 2 < SILENT_LEVEL) found.push(filled(sentences.silent, { lowest, highest }));
  else if (peak > LOUD_PEAK) found.push(filled(sentences.out_of_range, { peak }));
  else if (share > CLIPPED_SHARE) found.push(filled(sentences.clipped, { percent: 100 * share }));
  const [low, high] = range(mono);
  if (found.length === 0 && channels.length > 1 && high - low < 2 * SILENT_LEVEL) found.push(sentences.silent_mixed);
  const duration = mono.length / rate;
  if (duration < SHORT_CLIP_S) found.push(filled(sentences.too_short, { duration, shortest: SHORT_CLIP_S }));
  if (rate < modelRate) {
    found.push(filled(sentences.band_limited, { rate, highest: rate / 2, listened: modelRate / 2 }));
  }
  return found;
}

export function range(samples) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of samples) {
    if (!Number.isFinite(value)) return [NaN, NaN];
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function countInRuns(samples) {
  let [count, run] = [0, 0];
  for (let at = 0; at <= samples.length; at++) {
    if (at < samples.length && Math.abs(samples[at]) >= CLIPPED_LEVEL) run++;
    else {
      if (run >= CLIPPED_RUN) count += run;
      run = 0;
    }
  }
  return count;
}
