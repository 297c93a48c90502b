// What numpy does and JavaScript does not, and Python's way of writing numbers.

export const clip = (value, low, high) => Math.min(Math.max(value, low), high);

// Halves go to the even neighbour, as in Python.
export function roundHalfEven(value) {
  const whole = Math.round(value);
  return Math.abs(value % 1) === 0.5 && whole % 2 !== 0 ? whole - 1 : whole;
}

export const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

// As Python's f"{value:.2f}": exact ties go to the even neighbour, which toFixed does not know.
export function fixed(value, decimals) {
  const mayBeTie = Number.isInteger(value * 2 ** (decimals + 1));
  const text = (mayBeTie ? roundHalfEven(value * 10 ** decimals) / 10 ** decimals : value).toFixed(decimals);
  return value < 0 && !text.startsWith("-") ? `-${text}` : text;
}

// Rounded to so many decimals; null and infinity stay.
export const rounded = (value, decimals) => (Number.isFinite(value) ? Number(fixed(value, decimals)) : value);

// Quantile of sorted numbers with linear interpolation.
export function quantileOfSorted(sorted, quantile) {
  const position = quantile * (sorted.length - 1);
  const lower = Math.floor(position);
  const upper = Math.min(lower + 1, sorted.length - 1);
  return sorted[lower] + (position - lower) * (sorted[upper] - sorted[lower]);
}

export function mean(values) {
  let total = 0;
  for (const value of values) total += value;
  return total / values.length;
}

export function deviation(values) {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - middle) ** 2)));
}

export function joinArrays(arrays, kind = Float32Array) {
  const joined = new kind(arrays.reduce((total, one) => total + one.length, 0));
  let at = 0;
  for (const one of arrays) {
    joined.set(one, at);
    at += one.length;
  }
  return joined;
}

// Base64 of little-endian numbers.
export function unpack(text, kind) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new kind(bytes.buffer);
}

// ---- sentences: templates in the syntax of Python's str.format with the kinds f and g, e.g. "{share:.3g} %"

export function filled(template, values) {
  return template.replace(/\{(\w+)(?::([^}]*))?\}/g, (_, name, spec) => formatted(values[name], spec));
}

function formatted(value, spec) {
  const found = /^(\+?)\.(\d+)([fg])$/.exec(spec ?? "");
  if (!found) return String(value);
  const [, plus, digits, kind] = found;
  const text = kind === "f" ? fixed(value, Number(digits)) : general(value, Number(digits));
  return plus && value >= 0 ? `+${text}` : text;
}

function general(value, digits) {
  if (value === 0) return Object.is(value, -0) ? "-0" : "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const trimmed = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  const power = Number(exponent);
  if (power >= -4 && power < digits) return trimmed(fixed(value, digits - 1 - power));
  return `${trimmed(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}
