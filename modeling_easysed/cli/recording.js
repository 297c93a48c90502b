// A section.recording of the report or of the app: its table is sorted by any column, its events are played, a playhead
// runs over its picture. Everything hangs on the document, so sections may come and go.

// ---- sort: numbers as numbers, text as text; the same heading again turns the order round
function sort(button) {
  const heading = button.closest("th");
  const column = Number(button.dataset.column);
  const descending = heading.getAttribute("aria-sort") === "ascending";
  const body = heading.closest("table").tBodies[0];
  const keys = new Map([...body.rows].map((row) => [row, row.cells[column].dataset.value]));
  const isNumber = [...keys.values()].every((key) => key !== "" && !Number.isNaN(Number(key)));
  const order = isNumber ? (a, b) => Number(a) - Number(b) : (a, b) => a.localeCompare(b);
  const sorted = [...keys].sort(([, a], [, b]) => (descending ? order(b, a) : order(a, b)));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...sorted.map(([row]) => row));
}

// ---- play: one sound at a time; of an event exactly its stretch
let playing = null;

function stop() {
  if (playing === null) return;
  const { audio, row } = playing;
  playing = null;
  audio.pause();
  if (row) row.classList.remove("sounding");
}

function play(section, start, until, row) {
  const audio = [...section.querySelectorAll("audio")].find(
    (one) => Number(one.dataset.start) <= start + 1e-6 && start < Number(one.dataset.stop));
  if (!audio) return;
  const isAgain = playing !== null && row !== null && playing.row === row;
  stop();
  if (isAgain) return;
  const details = audio.closest("details");
  if (details) details.open = true;
  playing = { audio, until: until === null ? null : until - Number(audio.dataset.start), row };
  if (row) row.classList.add("sounding");
  const begin = () => { audio.currentTime = start - Number(audio.dataset.start); audio.play().catch(stop); };
  if (audio.readyState >= 1) begin();
  else { audio.addEventListener("loadedmetadata", begin, { once: true }); audio.load(); }
}

function stopAtEnd(audio) {
  if (playing === null || playing.audio !== audio || playing.until === null) return;
  if (audio.currentTime >= playing.until) stop();
}

function follow(audio) {
  const section = audio.closest("section");
  const sheet = section.querySelector(".sheet");
  const head = sheet.querySelector(".playhead");
  const { left, right, duration } = sheet.dataset;
  const now = Number(audio.dataset.start) + audio.currentTime;
  head.style.left = `${100 * (Number(left) + (Number(right) - Number(left)) * Math.min(1, now / Number(duration)))}%`;
  head.hidden = false;
  stopAtEnd(audio);
  if (!audio.paused) requestAnimationFrame(() => follow(audio));
}

document.addEventListener("play", (event) => {
  if (playing === null || playing.audio !== event.target) {
    stop();
    playing = { audio: event.target, until: null, row: null };
  }
  follow(event.target);
}, true);
document.addEventListener("timeupdate", (event) => stopAtEnd(event.target), true);  // no frames in a hidden tab
for (const name of ["pause", "ended"]) {
  document.addEventListener(name, (event) => {
    if (playing !== null && playing.audio === event.target && !event.target.seeking) stop();
  }, true);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.sort");
  if (button) return sort(button);
  const row = event.target.closest("tr[data-onset]");
  if (row && !row.querySelector("button.play").disabled && getSelection().isCollapsed) {
    return play(row.closest("section"), Number(row.dataset.onset), Number(row.dataset.until), row);
  }
  const sheet = event.target.closest(".sheet");
  if (sheet) {
    const box = sheet.getBoundingClientRect();
    const { left, right, duration } = sheet.dataset;
    const share = ((event.clientX - box.left) / box.width - Number(left)) / (Number(right) - Number(left));
    if (share >= 0 && share <= 1) play(sheet.closest("section"), share * Number(duration), null, null);
  }
});
