// From candidates to the events that are reported, as judging_easysed.py and reasons_easysed.py do it. All sentences
// come from Python, see words.json.
import { filled, fixed, rounded } from "./numbers.js";

const EVENT_NUMBERS = [
  "onset",
  "offset",
  "score",
  "confidence",
  "confidence_low",
  "confidence_high",
  "onset_low",
  "onset_high",
  "offset_low",
  "offset_high",
  "unfamiliarity",
];
const DECIMALS = 6;

export class Judge {
  // `calibration`: of the setting in use, or null; `rule`: {accept: [per class], review} of easysed.json, or undefined.
  constructor(description, words, calibration, rule) {
    this.labels = description.labels;
    this.thresholds = description.decoding.parameters.threshold;
    this.words = words.reasons;
    Object.assign(this, { calibration, rule });
  }

  floor(classIndex) {
    return this.calibration === null ? this.thresholds[classIndex] : this.calibration.floor;
  }

  // Events as Detection.to_dict gives them; `warnings`: of the recording; `duration`: Infinity where it goes on.
  events(found, warnings, duration) {
    if (this.calibration === null) return found.map((one) => this.event(one, {}, null, null));
    const events = [];
    for (const one of found) {
      const judgement = this.calibration.judge(one, duration);
      const index = one.box.classIndex;
      const decision = this.decide(judgement, index);
      if (decision === "reject" && one.box.score <= this.thresholds[index]) continue;
      const reasons = this.reasons(one, judgement, decision, warnings, duration, this.rule.accept[index]);
      events.push(this.event(one, judgement, decision, reasons));
    }
    return events;
  }

  decide(judgement, index) {
    if (judgement.confidence >= this.rule.accept[index] && !judgement.isUnfamiliar) return "accept";
    return judgement.confidence >= this.rule.review ? "review" : "reject";
  }

  event(one, judgement, decision, reasons) {
    const numbers = { ...one.box, ...judgement };
    const event = {};
    for (const name of EVENT_NUMBERS) event[name] = name in numbers ? rounded(numbers[name], DECIMALS) : null;
    const parts = ["total", "aleatoric", "epistemic"];
    const uncertainty = Object.fromEntries(parts.map((name) => [name, rounded(one[name], DECIMALS)]));
    const { onset, offset, score, unfamiliarity, ...intervals } = event;
    return {
      onset,
      offset,
      label: this.labels[one.box.classIndex],
      score,
      ...intervals,
      uncertainty,
      decision,
      reasons,
      exit: one.exit,
      unfamiliarity,
    };
  }

  // What speaks against an event, the gravest first.
  reasons(one, judgement, decision, warnings, duration, needed) {
    const { words } = this;
    const isUnfamiliar = judgement.isUnfamiliar || (judgement.seemsUnfamiliar && decision !== "accept");
    const reasons = isUnfamiliar ? [words.unfamiliar] : [];
    const limits = this.calibration.fitted.reason_limits;
    for (const [name, attribute, isUpper] of words.limits) {
      const isDoubtful = isUpper
        ? one[attribute] > Math.max(limits[name], words.smallest_limit)
        : one[attribute] < limits[name];
      if (isDoubtful) reasons.push(words.sentences[name]);
    }
    if (one.box.onset <= 0 || one.box.offset >= duration) reasons.push(words.cut_off);
    reasons.push(...warnings.filter((warning) => words.input_words.some((word) => warning.startsWith(word))));
    if (!judgement.isCalibrated) reasons.push(words.uncalibrated);
    if (reasons.length === 0 && decision !== "accept") reasons.push(this.weakness(judgement.confidence, needed));
    return reasons;
  }

  weakness(confidence, needed) {
    const toldApart = [2, 3, 4, 5].find((count) => rounded(needed, count) > rounded(confidence, count));
    const digits = toldApart ?? 6;
    const asked = needed <= 1 ? filled(this.words.needed, { needed: fixed(needed, digits) }) : this.words.never;
    return filled(this.words.weak, { confidence: fixed(confidence, digits), asked });
  }
}
