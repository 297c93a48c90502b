// From evidence to confidence, intervals and unfamiliarity, as calibration_easysed.py does it.
import { clip, sigmoid, unpack } from "./numbers.js";
import { toLogit } from "./evidence.js";

const QUANTILE = 1.6448536269514722,
  ENTROPY_SCALE = 3,
  SMALLEST_RISE_SHARE = 0.1;

// Judges candidates of the exported exit; `saved` is what easysed.json says under "calibration".
export class Calibration {
  constructor(saved, exit, setting, labels) {
    const own = saved.exits[String(exit)];
    this.fitted = own.settings[setting];
    this.labels = labels;
    this.temperature = own.temperature;
    this.floor = this.fitted.floor;
    this.familiarity = new Familiarity(own.familiarity);
  }

  judge(one, duration) {
    const { fitted } = this;
    const unfamiliarity = this.familiarity.measure(one.embedding, one.box.classIndex);
    const own = fitted.classes[this.labels[one.box.classIndex]];
    const { coefficients, covariance } = own ?? fitted;
    const features = [
      1,
      toLogit(one.box.score),
      one.weakest_exit,
      clip(unfamiliarity, -3, 6),
      ENTROPY_SCALE * one.total,
    ];
    const middle = features.reduce((sum, value, index) => sum + value * coefficients[index], 0);
    const variance = quadraticForm(covariance, features);
    const moved = coefficients[1] ** 2 * (one.sample_spread ** 2 + one.shift_spread ** 2);
    const half = QUANTILE * fitted.interval_factor * Math.sqrt(variance + moved);
    const confidence = sigmoid(middle / Math.sqrt(1 + (Math.PI * variance) / 8));
    const { outwards, inwards } = fitted.border;
    const onset = this.border(one, "onset", outwards, inwards, duration);
    const offset = this.border(one, "offset", -inwards, -outwards, duration);
    return {
      confidence,
      confidence_low: Math.min(confidence, sigmoid(middle - half)),
      confidence_high: Math.max(confidence, sigmoid(middle + half)),
      onset_low: onset[0],
      onset_high: onset[1],
      offset_low: offset[0],
      offset_high: offset[1],
      unfamiliarity,
      isUnfamiliar: unfamiliarity > this.familiarity.limit,
      seemsUnfamiliar: unfamiliarity > this.familiarity.doubtLimit,
      isCalibrated: own !== undefined && !own.uncalibrated,
    };
  }

  border(one, name, below, above, duration) {
    const spread = Math.hypot(
      one[`${name}_spread`],
      SMALLEST_RISE_SHARE * one[`${name}_rise`],
      this.fitted.border.floor,
    );
    const time = one.box[name];
    return [
      Math.min(Math.max(time + spread * below, 0), time),
      Math.max(Math.min(time + spread * above, duration), time),
    ];
  }
}

// Relative Mahalanobis distance of an embedding to a class, in deviations from target events' median.
class Familiarity {
  constructor(saved) {
    const flat = unpack(saved.distance, Float32Array);
    const upper = (saved.size * (saved.size + 1)) / 2;
    this.quadratic = flat.subarray(0, upper);
    this.linear = flat.subarray(upper, flat.length - saved.num_classes);
    this.constant = flat.subarray(flat.length - saved.num_classes);
    ({ median: this.median, spread: this.spread, limit: this.limit, doubt_limit: this.doubtLimit } = saved);
  }

  measure(embedding, classIndex) {
    let distance = quadraticForm(this.quadratic, embedding) + this.constant[classIndex];
    embedding.forEach((value, index) => {
      distance += value * this.linear[classIndex * embedding.length + index];
    });
    return (distance - this.median) / this.spread;
  }
}

// values' M values of a symmetric matrix whose upper triangle is given row by row.
function quadraticForm(upper, values) {
  let [sum, at] = [0, 0];
  for (let row = 0; row < values.length; row++) {
    sum += upper[at++] * values[row] ** 2;
    for (let column = row + 1; column < values.length; column++) sum += 2 * upper[at++] * values[row] * values[column];
  }
  return sum;
}
