// Lanes on a canvas, for results and for the microphone: a class's probability in its band, and below it its events.
import { largestBeside } from "./columns.js";

export const LANE = 74,
  AXIS = 24,
  SMALL = "12px system-ui, sans-serif",
  TEXT = "600 13px system-ui, sans-serif";
const CURVE_TOP = 20,
  CURVE_BOTTOM = 46,
  BAR_TOP = 49,
  BAR = 15,
  BAND_DEVIATIONS = 1.645;
const MAX_LANES = 12,
  NEAR = 0.2,
  NARROW = 7,
  MIN_INTERVAL = 6;

// The canvas at the size of its place, in CSS pixels: {g, width, colour}.
export function prepare(canvas, height) {
  const width = canvas.clientWidth;
  const ratio = Math.min(window.devicePixelRatio || 1, 16000 / Math.max(width, 1));
  canvas.style.height = `${height}px`;
  const sizes = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== sizes[0] || canvas.height !== sizes[1]) [canvas.width, canvas.height] = sizes;
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.lineWidth = 1;
  const style = getComputedStyle(document.documentElement);
  return { g, width, colour: (name) => style.getPropertyValue(`--${name}`).trim() };
}

// Indices of the classes that get a lane: those with events, then those that come near sounding.
export function shownClasses(peaks, hasEvents) {
  const near = peaks.map((_, index) => index).filter((index) => hasEvents[index] || peaks[index] >= NEAR);
  near.sort((a, b) => Number(hasEvents[b]) - Number(hasEvents[a]) || peaks[b] - peaks[a]);
  return near.slice(0, MAX_LANES).sort((a, b) => a - b);
}

export const tidy = (label) => label.replaceAll("_", " ");

// points: [[second, probability, spread], ...]; events of this class; look: {g, width, colour, across, words}.
export function drawLane(look, label, top, points, events) {
  const { g, width, colour, across } = look;
  const y = (probability) => top + CURVE_BOTTOM - (CURVE_BOTTOM - CURVE_TOP) * Math.min(Math.max(probability, 0), 1);
  g.strokeStyle = colour("line");
  g.beginPath();
  for (const level of [0, 1]) {
    g.moveTo(0, y(level) + 0.5);
    g.lineTo(width, y(level) + 0.5);
  }
  g.stroke();
  const shown = points.length > 2 * width ? largestBeside(points, Math.floor(points.length / width)) : points;
  const reach = ([, , spread]) => BAND_DEVIATIONS * spread;
  path(g, [
    ...shown.map((one) => [across(one[0]), y(one[1] + reach(one))]),
    ...shown.map((one) => [across(one[0]), y(one[1] - reach(one))]).reverse(),
  ]);
  g.fillStyle = colour("band");
  g.fill();
  path(
    g,
    shown.map((one) => [across(one[0]), y(one[1])]),
  );
  g.strokeStyle = colour("curve");
  g.lineWidth = 1.5;
  g.stroke();
  g.lineWidth = 1;
  for (const event of events) drawEvent(look, event, top);
  g.font = TEXT;
  g.textAlign = "left";
  g.fillStyle = colour("ink");
  g.fillText(label, 2, top + 15);
}

function path(g, places) {
  g.beginPath();
  places.forEach(([x, y], index) => (index === 0 ? g.moveTo(x, y) : g.lineTo(x, y)));
}

// A bar by its decision: solid, pale and hatched, hollow; paler and dashed while preliminary. Its confidence where it
// fits; whiskers of its borders.
function drawEvent(look, event, top) {
  const { g, colour, across, words } = look;
  const [left, right] = [across(event.onset), Math.max(across(event.offset), across(event.onset) + 2)];
  const decision = event.decision ?? "unjudged";
  const mark = words.decisions[decision];
  const isNarrow = right - left < NARROW;
  const height = isNarrow ? BAR * mark.height : BAR; // a narrow bar speaks by its height
  const place = [left, top + BAR_TOP + BAR - height, right - left, height];
  const [fill, edge] = [colour(`${decision}-fill`), colour(`${decision}-edge`)];
  g.fillStyle = colour("background");
  g.fillRect(...place);
  g.globalAlpha = event.isProvisional ? 0.5 : 1;
  g.fillStyle = isNarrow ? edge : fill;
  g.fillRect(...place);
  g.strokeStyle = edge;
  if (mark.hatch !== null && !isNarrow) hatch(g, ...place);
  g.globalAlpha = 1;
  g.setLineDash(event.isProvisional ? [4, 3] : []);
  g.strokeRect(left + 0.5, place[1] + 0.5, right - left - 1, height - 1);
  g.setLineDash([]);
  const ink = colour(event.isProvisional ? "ink" : `${decision}-ink`);
  writeOnBar(look, event, [left, right], top + BAR_TOP, { mark, fill, ink });
  g.strokeStyle = colour("ink");
  whisker(g, across, event.onset_low, event.onset_high, top + BAR_TOP + BAR + 3);
  whisker(g, across, event.offset_low, event.offset_high, top + BAR_TOP + BAR + 7);
}

function hatch(g, left, top, width, height) {
  g.save();
  g.beginPath();
  g.rect(left, top, width, height);
  g.clip();
  g.beginPath();
  for (let x = left - height; x < left + width; x += 6) {
    g.moveTo(x, top + height);
    g.lineTo(x + height, top);
  }
  g.stroke();
  g.restore();
}

function writeOnBar({ g, width, colour }, event, [left, right], top, { mark, fill, ink }) {
  const number = (event.confidence ?? event.score).toFixed(2);
  const [from, to] = [Math.max(left, 0), Math.min(right, width)];
  g.font = SMALL;
  g.textAlign = "center";
  const text = [`${mark.symbol} ${number}`.trim(), number, mark.symbol].find(
    (one) => g.measureText(one).width + 8 < to - from,
  );
  if (!text) return;
  if (mark.hatch !== null) {
    // a hatch would run through the figures
    const half = g.measureText(text).width / 2 + 3;
    g.fillStyle = fill;
    g.fillRect((from + to) / 2 - half, top + 1.5, 2 * half, BAR - 3);
  }
  g.fillStyle = ink;
  g.fillText(text, (from + to) / 2, top + 11.5);
}

function whisker(g, across, low, high, y) {
  if (low === null || across(high) - across(low) < MIN_INTERVAL) return;
  g.beginPath();
  g.moveTo(across(low), y);
  g.lineTo(across(high), y);
  for (const end of [low, high]) {
    g.moveTo(across(end), y - 2);
    g.lineTo(across(end), y + 2);
  }
  g.stroke();
}

// Ticks at round times from `start` to `stop` seconds.
export function drawAxis({ g, width, colour, across }, start, stop, y) {
  const step =
    [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300].find((one) => (stop - start) / one <= width / 56) ?? 600;
  g.font = SMALL;
  g.fillStyle = colour("muted");
  for (let number = Math.ceil(start / step); number * step <= stop; number++) {
    const x = across(number * step);
    g.textAlign = x < 16 ? "left" : x > width - 16 ? "right" : "center";
    g.fillText(`${Number((number * step).toFixed(1))} s`, Math.min(Math.max(x, 2), width - 2), y);
  }
}
