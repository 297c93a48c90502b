// A result as the Space and the report show it: verdict, warnings, picture, sound, table, why, download.
import { decisionMark, duration, element, jsonLink, time } from "./elements.js";
import { tidy } from "./lanes.js";
import { filled } from "./numbers.js";
import { described, drawPicture } from "./picture.js";

const COLUMNS = ["onset", "offset", "label", "confidence", "decision", "reasons"];
const PICTURE_WIDTH_PER_S = 24; // longer recordings scroll in their own frame
const HEARD_S = 30; // of a longer event the beginning is heard
let address = null;

// The section of one recording; `sound` is the file.
export function resultSection({ detection, picture, seconds, sound, words, model }) {
  const { events } = detection;
  if (address !== null) URL.revokeObjectURL(address);
  address = URL.createObjectURL(sound);
  const canvas = element("canvas", { role: "img", "aria-label": described(events) });
  const style = `min-width: ${Math.min(6000, Math.round(detection.duration * PICTURE_WIDTH_PER_S))}px`;
  const sheet = element(
    "div",
    { class: "sheet", "data-left": 0, "data-right": 1, "data-duration": detection.duration, style },
    canvas,
    element("span", { class: "playhead", hidden: true }),
  );
  const frame = { class: "picture", tabindex: 0, role: "group", "aria-label": "picture, long ones scroll sideways" };
  const section = element(
    "section",
    { class: "recording", "aria-label": "result" },
    element("p", { class: "verdict", role: "status" }, verdict(detection, seconds, model)),
    warningList(detection.warnings),
    element("div", frame, sheet),
    element(
      "div",
      { class: "sound" },
      element("audio", {
        controls: true,
        preload: "auto",
        "data-start": 0,
        "data-stop": detection.duration,
        src: address,
        "aria-label": "the recording",
      }),
    ),
    events.length > 0 ? element("p", { class: "note" }, words.hint) : element("p", { class: "note" }, words.no_events),
    events.length > 0 ? eventTable(detection, words, true) : null,
    ...events.map((event) => panel(event, detection, words)),
    ...about(detection),
    downloads(detection, detection.file.replace(/\.[^.]*$/, "")),
  );
  new ResizeObserver(() => drawPicture(canvas, picture, events, words)).observe(sheet);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    drawPicture(canvas, picture, events, words),
  );
  return section;
}

export const downloads = (detection, stem) =>
  element("p", { class: "downloads", role: "group", "aria-label": "downloads" }, jsonLink(detection, stem));

function verdict({ events, duration: length }, seconds, model) {
  const counted = { accept: "accepted", review: "for review", reject: "rejected", null: "not judged" };
  const counts = Object.entries(counted)
    .map(([decision, word]) => [events.filter((one) => String(one.decision) === decision).length, word])
    .filter(([count]) => count > 0)
    .map(([count, word]) => `${count} ${word}`);
  const found =
    events.length === 0
      ? "no events"
      : `${events.length} event${events.length === 1 ? "" : "s"} (${counts.join(", ")})`;
  return `${found} in ${duration(length)} of sound, heard in ${seconds.toFixed(2)} s by ${model}`;
}

function warningList(warnings) {
  if (warnings.length === 0) return null;
  return element(
    "ul",
    { class: "warnings", "aria-label": "warnings" },
    ...warnings.map((one) => element("li", {}, one)),
  );
}

// The table that recording.js sorts and plays; without sound there is nothing to play.
export function eventTable(detection, words, hasSound) {
  const heading = (name, number) =>
    element(
      "th",
      { scope: "col", role: "columnheader", "aria-sort": name === "onset" && hasSound ? "ascending" : null },
      hasSound ? element("button", { type: "button", class: "sort", "data-column": number }, name) : name,
    );
  const head = element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...COLUMNS.map(heading)));
  const rows = detection.events.map((event) => eventRow(event, detection.duration, words, hasSound));
  return element(
    "table",
    { role: "table" },
    element("caption", { class: "unseen" }, `events of ${detection.file}`),
    head,
    element("tbody", { role: "rowgroup" }, ...rows),
  );
}

export function eventRow(event, length, words, hasSound) {
  const label = tidy(event.label);
  const [onset, offset] = [event.onset, event.offset].map((one) => time(one, length));
  const until = Math.min(event.offset, event.onset + HEARD_S);
  const play = element(
    "button",
    { type: "button", class: "play", "aria-label": `Play ${label}, ${onset} to ${offset}` },
    "▶",
  );
  const interval = (low, high, text) =>
    low === null ? "" : element("small", { class: "interval" }, `${text(low)}–${text(high)}`);
  const seconds = (one) => time(one, length);
  const share = (one) => one.toFixed(2);
  const cells = [
    [
      event.onset,
      [
        hasSound ? play : "",
        " ",
        element("span", {}, onset),
        " ",
        interval(event.onset_low, event.onset_high, seconds),
      ],
    ],
    [event.offset, [element("span", {}, offset), " ", interval(event.offset_low, event.offset_high, seconds)]],
    [label, [label]],
    [
      event.confidence ?? event.score,
      event.confidence === null
        ? [`score ${share(event.score)}`]
        : [
            element("span", {}, share(event.confidence)),
            " ",
            interval(event.confidence_low, event.confidence_high, share),
          ],
    ],
    [event.decision ?? "", [decisionMark(event.decision, words)]],
    [
      (event.reasons ?? []).join("; "),
      (event.reasons ?? []).flatMap((one, at) => (at === 0 ? [one] : [element("br"), one])),
    ],
  ];
  const data = { role: "row", "data-decision": event.decision ?? "unjudged", "data-label": event.label };
  if (hasSound) Object.assign(data, { "data-onset": event.onset.toFixed(6), "data-until": until.toFixed(6) });
  return element(
    "tr",
    data,
    ...cells.map(([value, content], number) =>
      element("td", { role: "cell", class: `${COLUMNS[number]}-cell`, "data-value": value }, ...content),
    ),
  );
}

// Why an event was decided so; panels.js opens it below its row.
function panel(event, detection, words) {
  const label = tidy(event.label);
  const [onset, offset] = [event.onset, event.offset].map((one) => time(one, detection.duration));
  const reasons = event.reasons ?? [];
  return element(
    "article",
    {
      class: "panel",
      hidden: true,
      "data-onset": event.onset.toFixed(6),
      "data-label": event.label,
      "aria-label": `${label}, why and how sure`,
    },
    element("h3", {}, `${label}, ${onset} to ${offset} `, decisionMark(event.decision, words)),
    element("p", {}, because(event, words.because)),
    reasons.length > 0 ? element("p", {}, words.because.against) : null,
    reasons.length > 0 ? element("ul", {}, ...reasons.map((one) => element("li", {}, one))) : null,
  );
}

function because(event, words) {
  if (event.confidence === null) return filled(words.unjudged, { score: event.score });
  const share = 100 * event.confidence;
  const many = share >= 99.5 ? "more than 99" : share < 0.5 ? "fewer than 1" : `about ${share.toFixed(0)}`;
  const sure = filled(words.sure, { many });
  const interval = filled(words.interval, { low: 100 * event.confidence_low, high: 100 * event.confidence_high });
  return `${sure}${interval}. ${words.decided[event.decision]}`;
}

function about({ decision_rule, receipt }) {
  const value = (one) =>
    one === null
      ? "none"
      : typeof one !== "object"
        ? String(one)
        : Object.entries(one)
            .map(([name, item]) => `${name} ${item}`)
            .join(", ") || "default";
  const facts = Object.entries(receipt).map(([name, one]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value(one))),
  );
  const rule = element(
    "details",
    {},
    element("summary", {}, "Why? The rule behind the decisions"),
    element("ul", {}, ...decision_rule.map((one) => element("li", {}, one))),
  );
  return [
    decision_rule.length > 0 ? rule : null,
    element(
      "details",
      {},
      element("summary", {}, "Receipt: the same settings and file give the same events"),
      element("dl", { class: "facts" }, ...facts),
    ),
  ].filter((one) => one !== null);
}
