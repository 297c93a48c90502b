// The picture of a result: waveform, log-mel frames and lanes on one time axis.
import { AXIS, drawAxis, drawLane, LANE, prepare, shownClasses, SMALL, tidy } from "./lanes.js";

const WAVE = 44,
  MEL = 92,
  GAP = 6,
  DYNAMIC_RANGE_DB = 70;
// matplotlib's magma at equal steps.
const MAGMA = [
  "000004",
  "0c0926",
  "221150",
  "400f74",
  "5f187f",
  "7b2382",
  "982d80",
  "b73779",
  "d3436e",
  "eb5760",
  "f8765c",
  "fd9a6a",
  "febb81",
  "fddc9e",
  "fcfdbf",
].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

export function drawPicture(canvas, picture, events, words) {
  const { labels, numClasses, duration, point_s, probabilities, spread } = picture;
  const peaks = labels.map((_, index) => {
    let peak = 0;
    for (let at = index; at < probabilities.length; at += numClasses) peak = Math.max(peak, probabilities[at]);
    return peak;
  });
  const chosen = shownClasses(
    peaks,
    labels.map((label) => events.some((event) => event.label === label)),
  );
  const lanes = WAVE + GAP + MEL + GAP;
  const bottom = lanes + Math.max(1, chosen.length) * LANE;
  const { g, width, colour } = prepare(canvas, bottom + AXIS);
  const look = { g, width, colour, words, across: (second) => (second / duration) * width };
  drawWave(look, picture);
  drawLogMel(look, picture, WAVE + GAP);
  chosen.forEach((index, number) => {
    const points = [];
    for (let at = 0; at * numClasses < probabilities.length; at++) {
      points.push([
        Math.min(at * point_s, duration),
        probabilities[at * numClasses + index],
        spread[at * numClasses + index],
      ]);
    }
    points.push([duration, ...points.at(-1).slice(1)]);
    const own = events.filter((event) => event.label === labels[index]);
    drawLane(look, tidy(labels[index]), lanes + number * LANE, points, own);
  });
  if (chosen.length === 0) drawNothing(look, labels, peaks, lanes);
  drawAxis(look, 0, duration, bottom + 15);
}

function drawNothing({ g, width, colour }, labels, peaks, top) {
  const nearest = peaks.indexOf(Math.max(...peaks));
  g.font = SMALL;
  g.fillStyle = colour("ink");
  g.textAlign = "center";
  g.fillText("no class comes near sounding;", width / 2, top + 28);
  g.fillText(`the nearest, ${tidy(labels[nearest])}, reaches ${peaks[nearest].toFixed(2)}`, width / 2, top + 46);
}

function drawWave({ g, width, colour }, { lowest, highest }) {
  const peak = Math.max(1e-6, ...highest, ...lowest.map((value) => -value));
  const column = width / lowest.length;
  const y = (value) => WAVE / 2 - (value / peak) * (WAVE / 2 - 1);
  g.fillStyle = colour("wave");
  lowest.forEach((low, at) => {
    g.fillRect(at * column, y(highest[at]), Math.max(column, 0.5), Math.max(y(low) - y(highest[at]), 0.5));
  });
}

function drawLogMel({ g, width }, { logMel, mels }, top) {
  const columns = logMel.length / mels;
  const sorted = logMel.slice().sort();
  const high = sorted[Math.floor(0.998 * (sorted.length - 1))];
  const low = Math.max(high - DYNAMIC_RANGE_DB, sorted[Math.floor(0.01 * (sorted.length - 1))] - 1);
  const image = new ImageData(columns, mels);
  for (let column = 0; column < columns; column++) {
    for (let band = 0; band < mels; band++) {
      const share = Math.min(Math.max((logMel[column * mels + band] - low) / Math.max(high - low, 1), 0), 1);
      const at = 4 * ((mels - 1 - band) * columns + column);
      image.data.set([...shade(share), 255], at);
    }
  }
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns, mels];
  small.getContext("2d").putImageData(image, 0, 0);
  g.drawImage(small, 0, top, width, MEL);
}

function shade(share) {
  const place = share * (MAGMA.length - 1);
  const lower = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[lower].map((value, index) => value + (place - lower) * (MAGMA[lower + 1][index] - value));
}

// In words, for who does not see it.
export function described(events) {
  const named = events
    .slice(0, 12)
    .map((one) => `${tidy(one.label)} from ${one.onset.toFixed(1)} to ${one.offset.toFixed(1)} s`);
  const said = named.length > 0 ? named.join(", ") : "no events";
  return `Waveform, spectrogram and a lane with probability and its spread for every class that sounds: ${said}.`;
}
