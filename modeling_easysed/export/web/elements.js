// Elements of the page; text is always text.

// element("td", { class: "label-cell", "data-value": 1 }, "rain", child, ...)
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A decision as its symbol and word, never by colour alone.
export function decisionMark(decision, words) {
  const name = decision ?? "unjudged";
  const { symbol, word } = words.decisions[name];
  return element("span", { class: `decision ${name}` }, element("span", { "aria-hidden": "true" }, symbol), ` ${word}`);
}

// A link that saves a detection as `easysed detect --format json` writes it.
export function jsonLink(detection, stem) {
  const content = new Blob([`${JSON.stringify(detection, null, 2)}\n`], { type: "application/json" });
  const href = URL.createObjectURL(content);
  return element("a", { class: "download", "data-format": "json", download: `${stem}.json`, href }, "Save as JSON");
}

export const duration = (seconds) => (seconds <= 180 ? `${seconds.toFixed(2)} s` : time(seconds, seconds));

// A time as 3.21, or 1:02:03.21 where times up to `longest` seconds need hours and minutes to be read.
export function time(seconds, longest) {
  if (longest <= 180) return seconds.toFixed(2);
  const hundredths = Math.round(seconds * 100);
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.floor(hundredths / 100);
  const clock = `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return `${clock}.${two(hundredths % 100)}`;
}
